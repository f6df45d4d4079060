"""LR pictures as people have them: a little blurred, noisy, and compressed as JPEG.

The order is a camera's: lens (blur), sensor (scaling, noise), file (JPEG, perhaps twice).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsr_lightning.data.degradation import Box, Degradation, DegradedPair
from pcsr_lightning.data.jpeg import jpeg
from pcsr_lightning.data.picture_buffer import mirrored
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.images import RESIZE_KERNELS, ResizeKernel, bicubic

_AROUND = 8
"""LR pixels around a crop that are degraded with it, so that JPEG's blocks reach beyond it."""
_WIDTHS = 4
"""Standard deviations at which a blur ends."""


@dataclass(frozen=True)
class _Draw:
    """What one crop gets; ``None`` and 0 for what it does not."""

    kernel: ResizeKernel
    blur: tuple[float, float, float] | None  # two standard deviations in LR pixels, and an angle
    noise: tuple[float, float]  # standard deviations in [0, 1]: constant, and signal's at white
    grey: bool
    qualities: tuple[int, ...]
    subsampled: bool


class PhotoDegradation(Degradation):
    """Blur, downscaling, noise and JPEG, each for a share of the crops, drawn for each crop.

    Ranges are ``(lowest, highest)``, drawn from uniformly; shares lie in [0, 1].

    Args:
        clean: share of crops that are downscaled bicubically and left at that.
        blur: share of the others that are blurred by a Gaussian.
        blur_sigma: its standard deviation in LR pixels.
        anisotropic: share of the blurred that have one in each of two directions, at any angle.
        kernels: how crops are downscaled, a weight for each of ``bicubic``, ``bilinear``, ``area``.
        noise: share with noise.
        noise_constant: standard deviation of the part that is alike everywhere, in levels of 255.
        noise_signal: of the part whose variance grows in proportion to brightness (shot noise), in
            levels, where a pixel is white.
        grey_noise: share of the noisy with the same noise in R, G and B.
        jpeg: share that are compressed.
        quality: on libjpeg's scale, whole numbers.
        subsampled: share of the compressed that are 4:2:0; the others are 4:4:4.
        twice: share of the compressed that are compressed again on a shifted grid, with a quality
            of its own, as pictures that were cropped and saved anew.

    Raises:
        ConfigError: a share or range out of bounds.
    """

    def __init__(
        self,
        clean: float = 0.15,
        blur: float = 0.2,
        blur_sigma: Sequence[float] = (0.2, 0.5),
        anisotropic: float = 0.5,
        kernels: Mapping[str, float] | None = None,
        noise: float = 0.35,
        noise_constant: Sequence[float] = (0.0, 16.0),
        noise_signal: Sequence[float] = (0.0, 8.0),
        grey_noise: float = 0.4,
        jpeg: float = 0.7,
        quality: Sequence[int] = (30, 95),
        subsampled: float = 0.7,
        twice: float = 0.2,
    ) -> None:
        shares = {
            "clean": clean, "blur": blur, "anisotropic": anisotropic, "noise": noise,
            "grey_noise": grey_noise, "jpeg": jpeg, "subsampled": subsampled, "twice": twice,
        }  # fmt: skip
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"data.degradation.{name}={share}: must be a share in [0, 1]")
        self.shares = shares
        self.blur_sigma = _range("blur_sigma", blur_sigma, 0.05, 3)
        self.noise_constant = _range("noise_constant", noise_constant, 0, 255)
        self.noise_signal = _range("noise_signal", noise_signal, 0, 255)
        self.quality = _range("quality", quality, 1, 100)
        self.kernels = _kernel_weights(kernels)
        # What JPEG's blocks see, the downscaling kernel, and the blur.
        self.margin = _AROUND + 2 + (math.ceil(_WIDTHS * self.blur_sigma[1]) if blur else 0)

    def __call__(
        self, window_B3HW: Tensor, box: Box, size: tuple[int, int], generator: torch.Generator
    ) -> Tensor:
        """As :class:`Degradation` says."""
        return self.pair(window_B3HW, box, size, generator).lr_B3hw

    def pair(
        self, window_B3HW: Tensor, box: Box, size: tuple[int, int], generator: torch.Generator
    ) -> DegradedPair:
        """Also the LR pixels before noise and JPEG: blurred and downscaled alone."""
        draws = [self._draw(generator) for _ in range(len(window_B3HW))]
        # A full image has its own first pixel in a JPEG block's corner, a crop does not.
        full = (box.height, box.width) == tuple(window_B3HW.shape[-2:])
        shifts = torch.randint(16, (2, 2), generator=generator, device=generator.device).tolist()
        offsets = [(0, 0) if full else tuple(shifts[0]), tuple(shifts[1])]
        scale = (size[0] / box.height, size[1] / box.width)
        around = 0 if full else _AROUND
        window, top, left = self._needed(window_B3HW, box, scale, full)
        window = _blurred(window, [d.blur for d in draws], scale)
        origin = (top - around / scale[0], left - around / scale[1])
        region = (size[0] + 2 * around, size[1] + 2 * around)
        clean = window.new_empty(len(window), 3, *region)
        for kernel in dict.fromkeys(d.kernel for d in draws):
            mine = [b for b, d in enumerate(draws) if d.kernel == kernel]
            clean[mine] = bicubic(window[mine], region, scale, origin, kernel)
        lr = _noisy(clean, draws, generator)
        lr = _compressed(lr, draws, 0, offsets[0])
        lr = _compressed(lr, draws, 1, offsets[1])
        inside = (..., slice(around, around + size[0]), slice(around, around + size[1]))
        return DegradedPair(lr[inside].contiguous(), clean[inside].contiguous())

    def _needed(
        self, window_B3HW: Tensor, box: Box, scale: tuple[float, float], full: bool
    ) -> tuple[Tensor, int, int]:
        """The part of the windows that the crops depend on, and where the box begins in it."""
        around_y, around_x = (math.ceil(self.margin / s) for s in scale)
        if full:  # mirrored, so that a blur does not wrap around
            spread = [math.ceil(_WIDTHS * self.blur_sigma[1] / s) for s in scale]
            pad_y, pad_x = (min(n, side) for n, side in zip(spread, box[2:], strict=True))
            return _padded(_padded(window_B3HW, pad_y, -2), pad_x, -1), pad_y, pad_x
        top, left = max(0, box.top - around_y), max(0, box.left - around_x)
        rows = slice(top, box.top + box.height + around_y)
        columns = slice(left, box.left + box.width + around_x)
        return window_B3HW[:, :, rows, columns], box.top - top, box.left - left

    def _draw(self, generator: torch.Generator) -> _Draw:
        """As many numbers for each crop, whatever they decide."""
        u = torch.rand(16, generator=generator, device=generator.device).tolist()
        yes = {name: u.pop() < share for name, share in self.shares.items()}
        chosen = self._kernel(u.pop())
        first, second = (_between(self.blur_sigma, u.pop()) for _ in range(2))
        blur = (first, second if yes["anisotropic"] else first, math.pi * u.pop())
        constant = _between(self.noise_constant, u.pop()) / 255
        signal = _between(self.noise_signal, u.pop()) / 255
        qualities = [round(_between(self.quality, u.pop())) for _ in range(2)]
        if yes["clean"]:
            return _Draw("bicubic", None, (0.0, 0.0), False, (), False)
        passes = 0 if not yes["jpeg"] else 2 if yes["twice"] else 1
        return _Draw(
            kernel=chosen,
            blur=blur if yes["blur"] else None,
            noise=(constant, signal) if yes["noise"] else (0.0, 0.0),
            grey=yes["grey_noise"],
            qualities=tuple(qualities[:passes]),
            subsampled=yes["subsampled"],
        )

    def _kernel(self, u: float) -> ResizeKernel:
        below = 0.0
        for name, weight in self.kernels.items():
            below += weight
            if u < below:
                return name
        return name


def _range(name: str, given: object, low: float, high: float) -> tuple[float, float]:
    values = tuple(given) if isinstance(given, Sequence) else ()
    if len(values) != 2 or not low <= values[0] <= values[1] <= high:
        raise ConfigError(
            f"data.degradation.{name}={given}: must be [lowest, highest], both from {low:g} to "
            f"{high:g}"
        )
    return float(values[0]), float(values[1])


def _kernel_weights(given: Mapping[str, float] | None) -> dict[ResizeKernel, float]:
    weights = {"bicubic": 0.7, "bilinear": 0.1, "area": 0.2} if given is None else dict(given)
    total = sum(weights.values())
    if (
        not weights.keys() <= set(RESIZE_KERNELS)
        or min(weights.values(), default=0) < 0
        or total <= 0
    ):
        raise ConfigError(
            f"data.degradation.kernels={weights}: must give weights of at least 0, not all 0, to "
            f"some of {', '.join(RESIZE_KERNELS)}"
        )
    return {kernel: weights[kernel] / total for kernel in RESIZE_KERNELS if kernel in weights}


def _between(low_high: tuple[float, float], u: float) -> float:
    return low_high[0] + (low_high[1] - low_high[0]) * u


def _padded(x: Tensor, pad: int, dim: int) -> Tensor:
    """With its mirror image at both ends of a dimension."""
    n = x.shape[dim]
    return x.index_select(dim, mirrored(torch.arange(-pad, n + pad, device=x.device), n))


def _blurred(
    x_B3HW: Tensor, blurs: list[tuple[float, float, float] | None], scale: tuple[float, float]
) -> Tensor:
    """Convolved with each crop's Gaussian; by Fourier transforms, quick however wide it is."""
    chosen = [b for b, blur in enumerate(blurs) if blur is not None]
    if not chosen:
        return x_B3HW
    H, W = x_B3HW.shape[-2:]
    # Distances from (0, 0) in LR pixels, the window taken as going round.
    y_H1 = torch.fft.fftfreq(H, 1 / H, device=x_B3HW.device)[:, None] * scale[0]
    x_W = torch.fft.fftfreq(W, 1 / W, device=x_B3HW.device) * scale[1]
    kernels = [_gaussian(y_H1, x_W, *blur) for blur in blurs if blur is not None]
    spectrum = torch.fft.rfft2(x_B3HW[chosen]) * torch.fft.rfft2(torch.stack(kernels))[:, None]
    out = x_B3HW.clone()
    out[chosen] = torch.fft.irfft2(spectrum, s=(H, W))
    return out


def _gaussian(y_H1: Tensor, x_W: Tensor, one: float, two: float, angle: float) -> Tensor:
    """A sampled Gaussian with a sum of 1, (H, W), that ends at ``_WIDTHS`` deviations."""
    along = math.cos(angle) * x_W + math.sin(angle) * y_H1
    across = math.cos(angle) * y_H1 - math.sin(angle) * x_W
    square = (along / one).square() + (across / two).square()
    kernel = torch.where(square <= _WIDTHS**2, torch.exp(-square / 2), 0.0)
    return kernel / kernel.sum()


def _noisy(lr_B3hw: Tensor, draws: list[_Draw], generator: torch.Generator) -> Tensor:
    """With noise of variance ``constant^2 + signal^2 x``, where there is any; then 8 bit."""
    chosen = [b for b, draw in enumerate(draws) if any(draw.noise)]
    device = lr_B3hw.device
    if generator.device != device:  # drawn where it is used, and decided by the generator alone
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        generator = torch.Generator(device).manual_seed(seed)
    white = torch.randn(lr_B3hw.shape, generator=generator, device=device)
    if not chosen:
        return lr_B3hw
    for b in chosen:
        if draws[b].grey:
            white[b] = white[b, :1]
    parts_B2 = torch.tensor([draws[b].noise for b in chosen], device=device)
    constant, signal = parts_B2[:, :, None, None, None].unbind(1)
    x = lr_B3hw[chosen].clamp(0, 1)
    out = lr_B3hw.clone()
    noisy = x + white[chosen] * (constant.square() + signal.square() * x).sqrt()
    out[chosen] = noisy.clamp(0, 1).mul(255).round().div(255)
    return out


def _compressed(lr_B3hw: Tensor, draws: list[_Draw], time: int, offset: tuple[int, int]) -> Tensor:
    """Compressed for the first (0) or the second (1) time, those that are."""
    chosen = [b for b, draw in enumerate(draws) if len(draw.qualities) > time]
    if not chosen:
        return lr_B3hw
    quality = [draws[b].qualities[time] for b in chosen]
    out = lr_B3hw.clone()
    out[chosen] = jpeg(lr_B3hw[chosen], quality, [draws[b].subsampled for b in chosen], offset)
    return out

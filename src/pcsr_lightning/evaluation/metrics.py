"""PSNR, SSIM and LPIPS of pictures rounded to 8 bit, with a border left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.images.comparison import eight_bit, shave

LUMA = (65.481, 128.553, 24.966)
"""MATLAB's rgb2ycbcr: luma is 16 plus these times R, G and B in [0, 1], which makes 16 to 235."""
SSIM_REACH = 5
"""Half the width of SSIM's window, 11 pixels."""
BAND_PIXELS = 2**18
"""Of larger pictures a few rows are compared at a time. SSIM takes about 600 bytes of a pixel."""
LPIPS_LEAST = 32
"""Pixels a side below which AlexNet's strides leave nothing."""


def psnr(sr_13HW: Tensor, hr_13HW: Tensor, border: int = 0) -> float:
    """PSNR on RGB in dB, both pictures in [0, 1] rounded to 8 bit, ``border`` pixels shaved.

    Infinite for pictures that are equal after rounding.
    """
    error = SquaredError()
    for sr, hr in _bands(sr_13HW, hr_13HW, border):
        error.add(sr, hr)
    return error.decibels


def psnr_y(sr_13HW: Tensor, hr_13HW: Tensor, border: int = 0) -> float:
    """PSNR on the luma of MATLAB's ``rgb2ycbcr``, in dB with a peak of 255; see :func:`psnr`.

    The RGB pictures are rounded to 8 bit, their luma is not rounded again.
    """
    error = SquaredError()
    for sr, hr in _bands(sr_13HW, hr_13HW, border):
        error.add(_luma(sr), _luma(hr))
    return error.decibels


def ssim(sr_13HW: Tensor, hr_13HW: Tensor, border: int = 0) -> float:
    """SSIM on RGB: the mean over channels, and over all places where the window fits.

    The window is a Gaussian of sigma 1.5, 11 x 11 pixels, as in Wang et al., 2004. NaN where fewer
    pixels than that are left inside the border.
    """
    return _similarity(_bands(sr_13HW, hr_13HW, border, SSIM_REACH))


def ssim_y(sr_13HW: Tensor, hr_13HW: Tensor, border: int = 0) -> float:
    """SSIM on the luma that :func:`psnr_y` compares, with a range of 255; see :func:`ssim`."""
    bands = _bands(sr_13HW, hr_13HW, border, SSIM_REACH)
    return _similarity((_luma(sr), _luma(hr)) for sr, hr in bands)


def build_lpips(device: torch.device) -> Callable[[Tensor, Tensor, int], float]:
    """LPIPS with AlexNet, as a function of ``(sr, hr, border)``: lower is better.

    Needs the extra ``pcsr_lightning[lpips]``, and at its first use torchvision fetches AlexNet's
    weights from the network. Neither was available where this was written: the input of
    torchmetrics is tested, its result has not been compared with another implementation's.
    NaN where fewer than 32 pixels a side are left.

    Raises:
        ConfigError: torchvision is not installed, or its weights cannot be fetched.
    """
    check_lpips()
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        metric = LearnedPerceptualImagePatchSimilarity("alex", normalize=True).to(device)
    except OSError as error:  # urllib's errors are of this kind
        raise ConfigError(
            f"lpips=true: AlexNet's weights cannot be fetched ({error}); go online once, put them "
            "into torch's hub folder by hand, or leave lpips=false"
        ) from None

    def lpips(sr_13HW: Tensor, hr_13HW: Tensor, border: int) -> float:
        sr, hr = (shave(eight_bit(x) / 255, border) for x in (sr_13HW, hr_13HW))
        if min(sr.shape[-2:]) < LPIPS_LEAST:
            return math.nan
        with torch.inference_mode():
            value: Tensor = metric(sr, hr)
        metric.reset()
        return float(value)

    return lpips


def check_lpips() -> None:
    """Refuses LPIPS where it is not installed.

    Raises:
        ConfigError: torchvision is not installed.
    """
    if find_spec("torchvision") is None:
        raise ConfigError(
            "lpips=true: LPIPS needs torchvision, which is not installed; in the "
            "checkout: pip install -e '.[lpips]', or leave lpips=false"
        )


class SquaredError:
    """The squared difference of two pictures on the 0..255 scale, part by part."""

    def __init__(self) -> None:
        self._total: Tensor | float = 0.0
        self._values = 0

    def add(self, sr: Tensor, hr: Tensor) -> None:
        """Takes a part of both."""
        self._total = self._total + (sr - hr).square().sum(dtype=torch.float64)
        self._values += sr.numel()

    @property
    def decibels(self) -> float:
        """PSNR; infinite where nothing differs."""
        return decibels(float(self._total), self._values)


class ComparedRows:
    """PSNR of a picture that comes in rows, see :func:`psnr`.

    Args:
        truth_13HW: what it is compared with.
        border: pixels that are left out on every side.
    """

    def __init__(self, truth_13HW: Tensor, border: int) -> None:
        self._truth_13HW, self._border, self._error = truth_13HW, border, SquaredError()

    def put(self, top: int, sr_13nW: Tensor) -> None:
        """Takes rows from ``top`` on."""
        (H, W), border = self._truth_13HW.shape[-2:], self._border
        first, last = max(border, top), min(H - border, top + sr_13nW.shape[2])
        if first < last:
            truth = self._truth_13HW[:, :, first:last, border : W - border].to(sr_13nW.device)
            sr = sr_13nW[:, :, first - top : last - top, border : W - border]
            self._error.add(eight_bit(sr), eight_bit(truth))

    @property
    def decibels(self) -> float:
        """Of all rows so far."""
        return self._error.decibels


def decibels(squared_error: float, values: int) -> float:
    """PSNR of so many values whose squared differences, of 0..255, have this sum."""
    return 10 * math.log10(255.0**2 * values / squared_error) if squared_error else math.inf


def _bands(
    sr_13HW: Tensor, hr_13HW: Tensor, border: int, reach: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of both pictures, rounded and shaved: of large ones a few at a time.

    Args:
        sr_13HW: a picture.
        hr_13HW: another.
        border: pixels that are left out on every side.
        reach: rows above and below which a band has besides its own, and which overlap.
    """
    sr, hr = shave(sr_13HW, border), shave(hr_13HW, border)
    H, W = sr.shape[-2:]
    rows = max(1, BAND_PIXELS // W)
    for top in range(0, max(1, H - 2 * reach), rows):
        part = (..., slice(top, top + rows + 2 * reach), slice(None))
        yield eight_bit(sr[part]), eight_bit(hr[part])


def _similarity(bands: Iterable[tuple[Tensor, Tensor]]) -> float:
    from kornia.metrics import ssim as ssim_map  # its window is two passes of one dimension

    total, values = 0.0, 0
    for sr, hr in bands:
        if min(sr.shape[-2:]) <= 2 * SSIM_REACH:
            return math.nan
        # A GPU may convolve float32 with a mantissa of ten bits (TF32), of which the differences
        # of squares that SSIM takes would leave little.
        kind = torch.float64 if sr.is_cuda else torch.float32
        sr, hr = sr.to(kind), hr.to(kind)
        map_1Chw = ssim_map(sr, hr, 2 * SSIM_REACH + 1, max_val=255.0, padding="valid")
        total += float(map_1Chw.sum(dtype=torch.float64))
        values += map_1Chw.numel()
    return total / values


def _luma(picture_13nW: Tensor) -> Tensor:
    """Of a picture on the 0..255 scale."""
    rgb = picture_13nW / 255
    weights = rgb.new_tensor(LUMA)[:, None, None]
    return 16 + (rgb * weights).sum(dim=1, keepdim=True)

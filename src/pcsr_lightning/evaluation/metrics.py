"""PSNR, SSIM and LPIPS of pictures rounded to 8 bit, with a border left out."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.images.comparison import eight_bit, shave

LUMA = (65.481, 128.553, 24.966)
"""MATLAB's rgb2ycbcr: luma is 16 plus these times R, G and B in [0, 1], which makes 16 to 235."""
SSIM_REACH = 5
"""Half the width of SSIM's window, 11 pixels."""
LPIPS_LEAST = 32
"""Pixels a side below which AlexNet's strides leave nothing."""


def psnr(sr_13HW: Tensor, hr_13HW: Tensor, border: int = 0) -> float:
    """PSNR on RGB in dB, both pictures in [0, 1] rounded to 8 bit, ``border`` pixels shaved.

    Infinite for pictures that are equal after rounding.
    """
    return _decibels(shave(eight_bit(sr_13HW), border), shave(eight_bit(hr_13HW), border))


def psnr_y(sr_13HW: Tensor, hr_13HW: Tensor, border: int = 0) -> float:
    """PSNR on the luma of MATLAB's ``rgb2ycbcr``, in dB with a peak of 255; see :func:`psnr`.

    The RGB pictures are rounded to 8 bit, their luma is not rounded again.
    """
    return _decibels(_luma(sr_13HW, border), _luma(hr_13HW, border))


def ssim(sr_13HW: Tensor, hr_13HW: Tensor, border: int = 0) -> float:
    """SSIM on RGB: the mean over channels, and over all places where the window fits.

    The window is a Gaussian of sigma 1.5, 11 x 11 pixels, as in Wang et al., 2004. NaN where fewer
    pixels than that are left inside the border.
    """
    return _similarity(*(shave(eight_bit(x), border) for x in (sr_13HW, hr_13HW)))


def ssim_y(sr_13HW: Tensor, hr_13HW: Tensor, border: int = 0) -> float:
    """SSIM on the luma that :func:`psnr_y` compares, with a range of 255; see :func:`ssim`."""
    return _similarity(_luma(sr_13HW, border), _luma(hr_13HW, border))


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


def _similarity(sr: Tensor, hr: Tensor) -> float:
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(sr.shape[-2:]) <= 2 * SSIM_REACH:
        return math.nan
    # Channels last: three times as fast on a CPU. A GPU may convolve float32 with a mantissa of
    # ten bits (TF32), of which the differences of squares that SSIM takes would leave little.
    kind = torch.float64 if sr.is_cuda else torch.float32
    sr, hr = (x.to(kind, memory_format=torch.channels_last) for x in (sr, hr))
    _, map_1CHW = structural_similarity_index_measure(
        sr, hr, sigma=1.5, data_range=255.0, return_full_image=True
    )
    # Without the mirrored surroundings, which releases of torchmetrics have averaged in or not.
    return float(shave(map_1CHW, SSIM_REACH).mean())


def _luma(picture_13HW: Tensor, border: int) -> Tensor:
    rgb = shave(eight_bit(picture_13HW), border) / 255
    weights = rgb.new_tensor(LUMA)[:, None, None]
    return 16 + (rgb * weights).sum(dim=1, keepdim=True)


def _decibels(sr: Tensor, hr: Tensor) -> float:
    # Imported here: torchmetrics takes seconds, which a mistyped command must not have to wait for.
    from torchmetrics.functional.image import peak_signal_noise_ratio

    # With `dim`, each picture has its own logarithm: errors of a batch are not pooled.
    return float(peak_signal_noise_ratio(sr, hr, data_range=255.0, dim=(1, 2, 3)))

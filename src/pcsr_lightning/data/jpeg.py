"""JPEG compression and decompression of a batch, on its device (ITU-T T.81; JFIF 1.02).

Colours are kornia's. Its ``kornia.enhance.jpeg_codec_differentiable`` is made for gradients: it
rounds coefficients softly, so that some of what JPEG throws away stays, and knows 4:2:0 only. A
network would learn to read what it leaves. Here coefficients, tables and pixels are rounded as
libjpeg does, and each crop is 4:2:0 or 4:4:4.

Legend: B crops, C components, h w pixels, i j blocks, u v frequencies.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from kornia.color import rgb_to_ycbcr, ycbcr_to_rgb
from torch import Tensor
from torch.nn import functional as F

# Annex K.1 of the standard: quality 50.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)


@lru_cache(maxsize=8)
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """The DCT as a matrix (8, 8), and the tables of luma and chroma (2, 8, 8)."""
    u = torch.arange(8, dtype=torch.float64)
    dct = torch.cos((2 * u + 1) * u[:, None] * math.pi / 16) / 2
    dct[0] /= math.sqrt(2)
    tables = torch.tensor([_LUMA, _CHROMA])
    return dct.to(device, torch.float32), tables.to(device, torch.float32)


def jpeg(
    rgb_B3hw: Tensor,
    quality: list[int],
    subsampled: list[bool],
    offset: tuple[int, int] = (0, 0),
) -> Tensor:
    """Pictures as they come out of a JPEG file.

    Args:
        rgb_B3hw: in [0, 1], float32; rounded to 8 bit first.
        quality: of each crop, 1 to 100, on libjpeg's scale.
        subsampled: whether a crop's chroma is stored at half the size (4:2:0) or not (4:4:4).
        offset: (y, x) of the pictures' first pixel in its block, each in [0, 16): (0, 0) for a
            picture that begins there. What the blocks hold beyond is repeated from the border.

    Returns:
        ``(B, 3, h, w)``, multiples of 1/255.
    """
    h, w = rgb_B3hw.shape[-2:]
    (top, left), device = offset, rgb_B3hw.device
    dct, tables = _constants(device)
    rgb = rgb_B3hw.clamp(0, 1).mul(255).round().div(255)
    rgb = F.pad(rgb, (left, -(left + w) % 16, top, -(top + h) % 16), mode="replicate")
    ycc = rgb_to_ycbcr(rgb)
    luma, chroma = ycc[:, :1].mul(255).round(), ycc[:, 1:].sub(0.5).mul(255).round()
    scale = torch.tensor([5000 // q if q < 50 else 200 - 2 * q for q in quality], device=device)
    table_B2uv = ((tables * scale[:, None, None, None] + 50) / 100).floor().clamp(1, 255)
    # Both centred at 0.
    luma = _quantized(luma - 128, table_B2uv[:, :1], dct) + 128
    half = [b for b, is_half in enumerate(subsampled) if is_half]
    full = [b for b, is_half in enumerate(subsampled) if not is_half]
    decoded = torch.empty_like(chroma)
    if full:
        decoded[full] = _quantized(chroma[full], table_B2uv[full, 1:], dct)
    if half:
        small = _quantized(F.avg_pool2d(chroma[half], 2).round(), table_B2uv[half, 1:], dct)
        # libjpeg's "fancy upsampling" is this triangle filter.
        decoded[half] = F.interpolate(small, scale_factor=2.0, mode="bilinear")
    out = ycbcr_to_rgb(torch.cat([luma, decoded + 127.5], dim=1).div(255))
    return out[:, :, top : top + h, left : left + w].mul(255).round().div(255)


def _quantized(x_BChw: Tensor, table_B1uv: Tensor, dct: Tensor) -> Tensor:
    """Every 8 x 8 block transformed, quantized by the table, and transformed back, rounded."""
    B, C, h, w = x_BChw.shape
    blocks = x_BChw.reshape(B, C, h // 8, 8, w // 8, 8).transpose(3, 4)
    table = table_B1uv[:, :, None, None]
    coefficients = (dct @ blocks @ dct.T / table).round() * table
    decoded = (dct.T @ coefficients @ dct).round()
    return decoded.transpose(3, 4).reshape(B, C, h, w).clamp(-128, 127)

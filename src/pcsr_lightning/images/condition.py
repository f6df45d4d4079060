"""What a photograph went through: JPEG's quality, block edges, and how much noise there is.

At most :data:`_SAMPLED` pixels are looked at, in windows all over the picture, so that time and
memory do not grow with it.

Legend: N windows, h w pixels of one, i j blocks of 8 x 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.images.picture import Picture, floats

QUALITY, NOISE, EDGES = 93, 2.5, 0.03
"""The photo model gains below this JPEG quality, and above so many levels of noise or so clear
block edges. docs/upscale.md says how they were found."""

_BLOCK, _WINDOW, _MARGIN = 8, 64, 3
_SAMPLED = 2**19
_FLATTEST = 0.05
"""Share of the blocks that noise is measured in."""
_TEXTURE = 2.0
"""Energy of texture at half the size, as a multiple of that at full size."""
_SELECTION = 0.75
"""What :func:`_noise` would find of white noise with a deviation of 1: it takes the flattest."""
_PATTERN = 64
"""Levels of what is no noise but drawn so, such as a checkerboard."""
_CLIPPED = 0.1
"""Share of a block that may be black, white or invisible."""
_LARGE_STEP, _FEWEST_STEPS = 16, 500
"""Levels, and how many steps of each column modulo 8 are needed to tell."""

# Annex K.1 of ITU-T T.81, luma: quality 50 of libjpeg.
_LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)


@dataclass(frozen=True)
class PictureCondition:
    """What a picture went through.

    Attributes:
        quality: of the JPEG file, 1 to 100 on libjpeg's scale; ``None`` for other files.
        noise: its standard deviation in levels of 255.
        edges: how much more often a step from pixel to pixel is greater than those beside it where
            JPEG's blocks meet: about 0 without blocks, at most 1.
    """

    quality: int | None = None
    noise: float = 0.0
    edges: float = 0.0

    @property
    def damage(self) -> str | None:
        """What a model of photographs should clean, in a few words; ``None`` if there is little."""
        if self.quality is not None and self.quality < QUALITY:
            return f"JPEG of quality {self.quality}"
        if self.noise > NOISE:
            return f"noise of {self.noise:.0f} levels"
        # A JPEG file of high quality has such edges, faint ones, of its own.
        earlier = self.quality is None and self.edges > EDGES
        return "block edges of an earlier JPEG" if earlier else None

    def __str__(self) -> str:
        """Why it is treated as it is."""
        if self.damage is not None:
            return self.damage
        return "clean" if self.quality is None else f"JPEG of quality {self.quality}, little noise"


def picture_condition(picture: Picture) -> PictureCondition:
    """Estimates what a picture went through.

    Args:
        picture: as it was read, whole numbers or not.
    """
    windows_NChw = _windows(picture.rgb[:1] if picture.grey else picture.rgb)
    quality = picture.metadata.jpeg_quality
    if windows_NChw is None:
        return PictureCondition(quality)
    alpha_N1hw = None if picture.alpha is None else _windows(picture.alpha)
    noise = _noise(windows_NChw, alpha_N1hw)
    return PictureCondition(quality, noise, _block_edges(windows_NChw))


def quality_of(tables: Mapping[int, Sequence[int]]) -> int:
    """The quality of libjpeg whose luma table comes closest to a JPEG file's.

    Args:
        tables: quantisation tables by number; that of luma has the lowest.
    """
    wanted = sum(tables[min(tables)])
    return min(range(100, 0, -1), key=lambda quality: abs(_table_sum(quality) - wanted))


def _table_sum(quality: int) -> int:
    """Of libjpeg's luma table; it falls as quality rises."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return sum(min(255, max(1, (n * percent + 50) // 100)) for n in _LUMA)


def _windows(rgb_Chw: Tensor) -> Tensor | None:
    """Windows on a grid of whole blocks, ``(N, C, h, w)`` in levels; ``None`` of a tiny picture."""
    sides = [min(_WINDOW, (n - 2 * _MARGIN) // _BLOCK * _BLOCK) for n in rgb_Chw.shape[1:]]
    if min(sides) < _BLOCK:
        return None
    pixels = rgb_Chw.shape[1] * rgb_Chw.shape[2]
    apart = max(1.0, (pixels / _SAMPLED) ** 0.5)
    found = rgb_Chw
    for dim, side in enumerate(sides, start=1):
        step = int(side * apart) // _BLOCK * _BLOCK
        found = found.unfold(dim, side + 2 * _MARGIN, step)
    return floats(found.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()) * 255


def _residual(x: Tensor) -> Tensor:
    """Second differences both ways, for white noise of the same variance; 1 less at each side."""
    x = 2 * x[..., 1:-1, :] - x[..., :-2, :] - x[..., 2:, :]
    return (2 * x[..., 1:-1] - x[..., :-2] - x[..., 2:]) / 6


def _noise(x_NChw: Tensor, alpha_N1hw: Tensor | None) -> float:
    """The noise's standard deviation, from the blocks with the least detail.

    The residual is that of Immerkaer, "Fast noise variance estimation", CVIU 1996. White noise has
    a quarter of its variance at half the size, where texture has more than at full size: so much
    of it is taken off. What is invisible, black or white does not count: noise ends there.
    """
    inside = (..., slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN))
    full = _residual(x_NChw)[..., _MARGIN - 1 : 1 - _MARGIN, _MARGIN - 1 : 1 - _MARGIN]
    half = _residual(F.avg_pool2d(x_NChw[..., 1:-1, 1:-1], 2))
    clipped = ((x_NChw[inside] < 1.5) | (x_NChw[inside] > 253.5)).float()
    if alpha_N1hw is not None:
        clipped = torch.maximum(clipped, (alpha_N1hw[inside] < 1.5).float())
    full_ij, half_ij, clipped_ij = (
        F.avg_pool2d(x, side).mean(dim=1)
        for x, side in ((full.square(), _BLOCK), (half.square(), _BLOCK // 2), (clipped, _BLOCK))
    )
    kept = clipped_ij < _CLIPPED
    full_n, half_n = full_ij[kept], half_ij[kept]
    if len(full_n) == 0:
        return 0.0
    flattest = full_n.argsort(stable=True)[: max(1, round(_FLATTEST * len(full_n)))]
    found = _TEXTURE * full_n[flattest].mean() - half_n[flattest].mean()
    levels = float(found.clamp(min=0).div(_TEXTURE - 0.25).sqrt()) / _SELECTION
    return levels if levels < _PATTERN else 0.0


def _block_edges(x_NChw: Tensor) -> float:
    """How far steps between blocks, on any grid, stand out from those inside; see the class."""
    x_Nhw = x_NChw.mean(dim=1)
    return min(_standing_out(x_Nhw), _standing_out(x_Nhw.transpose(1, 2)))


def _standing_out(x_Nhw: Tensor) -> float:
    """Across: the share of steps greater than both beside them, by column modulo 8.

    Returns:
        How far the greatest share is above the second. Large steps, and those with nothing beside
        them, do not count: letters and drawings have such, also on a grid.
    """
    steps = x_Nhw[..., _MARGIN - 1 : 2 - _MARGIN].diff(dim=-1).abs()
    middle, beside = steps[..., 1:-1], torch.maximum(steps[..., :-2], steps[..., 2:])
    counted = (beside > 0.1) & (middle < _LARGE_STEP)
    greatest = counted & (middle > beside)
    counts_8, greatest_8 = (found.reshape(-1, _BLOCK).sum(dim=0) for found in (counted, greatest))
    if int(counts_8.min()) < _FEWEST_STEPS:
        return 0.0
    first, second = (greatest_8 / counts_8).topk(2).values
    return float(first - second)

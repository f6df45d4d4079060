"""Colour under transparent pixels, so that enlarging draws no foreign colour into the edges.

Shapes: `rgb` is (3, h, w), `alpha` (1, h, w); `weight_1hw` tells how much a pixel's colour is
known, sums are of colours times their weights.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_RINGS = 4  # filled exactly from their neighbours; what lies farther off only has to be smooth


def fill_under_alpha(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Gives fully transparent pixels the colour of the visible ones near them.

    Their own colour is arbitrary, often black or white. A network or a bicubic filter would mix it
    into the half transparent edge, where it shows as a halo.

    Args:
        rgb: float (3, h, w).
        alpha: float (1, h, w), not premultiplied; any device, that of `rgb`.

    Returns:
        (3, h, w): `rgb` itself when no pixel is fully transparent or none is visible; otherwise a
        new tensor, equal to `rgb` wherever alpha is above 0.
    """
    hidden_1hw = alpha <= 0
    if not bool(hidden_1hw.any()) or bool(hidden_1hw.all()):
        return rgb
    colour, weight_1hw = rgb.clone(), alpha.to(rgb.dtype).clamp(0, 1)
    for _ in range(_RINGS):
        if not _fill_ring(colour, weight_1hw):
            return colour
    return _pulled(colour, weight_1hw)


def _fill_ring(colour: Tensor, weight_1hw: Tensor) -> bool:
    """Fills, in place, the unknown pixels that touch known ones. Whether there were any."""
    known = weight_1hw[0] > 0
    near = known.clone()
    near[1:] |= known[:-1]
    near[:-1] |= known[1:]
    across = near.clone()
    near[:, 1:] |= across[:, :-1]
    near[:, :-1] |= across[:, 1:]
    y, x = torch.nonzero(near & ~known, as_tuple=True)
    if len(y) == 0:
        return False
    h, w = known.shape
    colour_sum, weight_sum = colour.new_zeros(3, len(y)), colour.new_zeros(1, len(y))
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            at = (slice(None), (y + dy).clamp(0, h - 1), (x + dx).clamp(0, w - 1))
            weight = weight_1hw[at]
            colour_sum += colour[at] * weight
            weight_sum += weight
    colour[:, y, x] = colour_sum / weight_sum
    # A ring counts as much as its neighbours did, and no less than can be told from nothing.
    weight_1hw[:, y, x] = (weight_sum / 9).clamp_min(1e-6)
    return True


def _pulled(colour: Tensor, weight_1hw: Tensor) -> Tensor:
    """Colour everywhere: where it is unknown, that of ever coarser means."""
    known_1hw = weight_1hw > 0
    if bool(known_1hw.all()):
        return colour
    h, w = weight_1hw.shape[-2:]
    coarse_sum, coarse_weight = (
        F.avg_pool2d(values[None], 2, 2, ceil_mode=True)[0]
        for values in (colour * weight_1hw, weight_1hw)
    )
    divisor = torch.where(coarse_weight > 0, coarse_weight, 1)
    coarse = _pulled(coarse_sum / divisor, coarse_weight)
    fine = F.interpolate(coarse[None], scale_factor=2)[0, :, :h, :w]
    return torch.where(known_1hw, colour, fine)

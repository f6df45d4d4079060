"""Pixel-wise refinement: hides the seams between neighbours that took different upsamplers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def heavy_classes(num_classes: int) -> int:
    """How many classes count as heavy: ``floor((M + 1) / 2)`` (Sec. 3.4)."""
    return (num_classes + 1) // 2


def refine(
    sr_B3HW: Tensor, assignment_BHW: Tensor, num_classes: int, heavy_neighbours: int = 1
) -> Tensor:
    """Light pixels with a heavy one among their 3x3 neighbours take the 3x3 mean (Sec. 3.4).

    The outermost rows and columns are left as they are.

    Args:
        sr_B3HW: the routed picture.
        assignment_BHW: its classes, 0 the heaviest.
        num_classes: ``M``.
        heavy_neighbours: how many of the eight must be heavy (appendix, Table 3).

    Returns:
        The refined picture, a new tensor.
    """
    H, W = assignment_BHW.shape[-2:]
    if H < 3 or W < 3:
        return sr_B3HW.clone()
    inner = (..., slice(1, -1), slice(1, -1))
    touch_B1HW = touched(assignment_BHW, num_classes, heavy_neighbours)[:, None]
    mean = _three_by_three(sr_B3HW, torch.add).mul_(1 / 9)
    out = sr_B3HW.clone()
    out[inner] = torch.where(touch_B1HW[inner], mean, sr_B3HW[inner])
    return out


def touched(class_XHW: Tensor, num_classes: int, heavy_neighbours: int = 1) -> Tensor:
    """Which pixels :func:`refine` changes, bool; of one picture or of several."""
    heavy_XHW = class_XHW < heavy_classes(num_classes)
    touched_XHW = torch.zeros_like(heavy_XHW)
    if min(class_XHW.shape[-2:]) >= 3:
        inner = (..., slice(1, -1), slice(1, -1))
        near = _three_by_three(heavy_XHW.to(torch.uint8), torch.add)
        touched_XHW[inner] = (near >= heavy_neighbours) & ~heavy_XHW[inner]
    return touched_XHW


def _three_by_three(x: Tensor, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Joins each inner pixel with its eight neighbours; rows first, then columns.

    Sums of slices: several times as fast as pooling.
    """
    rows = join(join(x[..., :-2, :], x[..., 1:-1, :]), x[..., 2:, :])
    return join(join(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])

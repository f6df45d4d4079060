"""The classes that are best once the ground truth is known: the upper bound of any classifier.

Legend: B batch, M classes, H W HR size. Class 0 is the heaviest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pcsr_lightning.routing.adm import CHUNK
from pcsr_lightning.routing.budget import assign_by_budget, best_trades, check_macs


def assign_by_error(
    error_BMHW: Tensor, prices_M: Sequence[float], limit: float = math.inf
) -> Tensor:
    """The classes with the smallest sum of errors among those whose prices fit a limit.

    Without a limit each pixel takes the class with the smallest error; of equals, the cheapest.
    Under one, pixels are upgraded by falling gain for each unit of cost. A pixel goes straight to
    the class that pays best: classes above the lower convex hull of (price, error) are never
    taken (Lagrange multipliers; Everett, 1963). Equal gains are paid in raster order until the
    next upgrade would cost too much. Two classes: no other choice within the limit has a smaller
    sum. More: the sum is within one pixel's upgrade of the smallest, because upgrades cannot be
    split. A larger limit never makes the sum larger.

    Args:
        error_BMHW: of each class, such as squared differences from the ground truth; finite.
            Compared in single precision: exactly, if they are whole numbers below 2^24.
        prices_M: what one pixel of each class costs, in any unit, never rising.
        limit: what the pixels of one picture may cost together, in that unit. Below the cost of
            all pixels in the lightest class, that is what comes out.

    Returns:
        Classes ``(B, H, W)``, uint8.

    Raises:
        ConfigError: ``limit`` is NaN, or the prices do not fit the errors or rise.
    """
    check_macs(int(error_BMHW.shape[1]), prices_M, limit)
    B, M, H, W = error_BMHW.shape
    # Thresholds, and behind them an area of 1: every pixel is by itself.
    score_BMHW = error_BMHW.new_ones(B, M, H, W, dtype=torch.float32)
    rows = max(1, CHUNK // W)
    for top in range(0, H, rows):
        part = (..., slice(top, top + rows), slice(None))
        score_BMHW[:, :-1][part] = best_trades(-error_BMHW[part], prices_M)
    # Upgrades that gain nothing are not made, even where the limit would pay for them.
    wanted_BHW = error_BMHW.new_zeros(B, H, W, dtype=torch.uint8)
    for gain_BHW in score_BMHW[:, :-1].unbind(1):
        wanted_BHW += gain_BHW <= 0
    return torch.maximum(assign_by_budget(score_BMHW, prices_M, limit), wanted_BHW)


def picked(value_MHW: Tensor, class_HW: Tensor) -> Tensor:
    """Each pixel's value of its own class: ``(H, W)``."""
    found_HW = value_MHW[-1]
    for j, value_HW in enumerate(value_MHW[:-1]):
        found_HW = torch.where(class_HW == j, value_HW, found_HW)
    return found_HW

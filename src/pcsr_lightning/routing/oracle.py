"""The classes that are best once the ground truth is known: the upper bound of any classifier.

Legend: B batch, M classes, H W HR size. Class 0 is the heaviest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

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
    gain_BTHW = best_trades(-error_BMHW, prices_M)
    # Upgrades that gain nothing are not made, even where the limit would pay for them.
    wanted_BHW = (gain_BTHW <= 0).sum(dim=1, dtype=torch.uint8)
    area_B1HW = torch.ones_like(gain_BTHW[:, :1])  # every pixel by itself
    paid_BHW = assign_by_budget(torch.cat([gain_BTHW, area_B1HW], dim=1), prices_M, limit)
    return torch.maximum(paid_BHW, wanted_BHW)


def picked(value_MHW: Tensor, class_HW: Tensor) -> Tensor:
    """Each pixel's value of its own class: ``(H, W)``."""
    return value_MHW.gather(0, class_HW[None].long())[0]

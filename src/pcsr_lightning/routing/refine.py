"""Pixel-wise refinement: hides the seams between neighbours that took different upsamplers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.routing.assign import heavy_classes


def refine(sr_B3HW: Tensor, assignment_BHW: Tensor, num_classes: int) -> Tensor:
    """Light pixels with a heavy one among their 3x3 neighbours take the 3x3 mean (Sec. 3.4).

    The outermost rows and columns are left as they are.

    Args:
        sr_B3HW: the routed picture.
        assignment_BHW: its classes, 0 the heaviest.
        num_classes: ``M``.

    Returns:
        The refined picture, a new tensor.
    """
    H, W = assignment_BHW.shape[-2:]
    if H < 3 or W < 3:
        return sr_B3HW.clone()
    heavy_B1HW = (assignment_BHW < heavy_classes(num_classes))[:, None]
    beside_heavy = F.max_pool2d(heavy_B1HW.to(sr_B3HW.dtype), 3, stride=1) > 0
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    touch = beside_heavy & ~heavy_B1HW[inner]
    out = sr_B3HW.clone()
    out[inner] = torch.where(touch, F.avg_pool2d(sr_B3HW, 3, stride=1), sr_B3HW[inner])
    return out

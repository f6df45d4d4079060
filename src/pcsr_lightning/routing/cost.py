"""What a picture costs, and what each class costs as Eq. 10 sees it.

Legend: M classes, heaviest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.routing.config import CostRule


@dataclass(frozen=True)
class PictureSeconds:
    """What one picture takes on this device, in seconds, if its pixels take several classes.

    Attributes:
        fixed: whatever its pixels' classes are.
        pixel_M: an HR pixel of each class; heaviest first, never rising.
    """

    fixed: float
    pixel_M: tuple[float, ...]


@dataclass(frozen=True)
class PictureMacs:
    """What one picture costs, in multiply-adds; all that a routing rule learns of the model.

    Attributes:
        pixels: ``H * W``.
        pixel_M: an upsampler at one HR pixel, behind its first layer; heaviest first.
        fixed: the backbone, the classifier, and the first layer of every class on all LR pixels.
        all_heavy: every pixel in the heaviest class, without the classifier.
        all_light: every pixel in the lightest class, the classifier included.
        branches_M: ``flops(B) + flops(U_j)`` of Eq. 9 by the paper's count, at this scale.
        seconds: what it takes here, where a rule needs it.
    """

    pixels: int
    pixel_M: tuple[float, ...]
    fixed: float
    all_heavy: float
    all_light: float
    branches_M: tuple[float, ...]
    seconds: PictureSeconds | None = None


def class_costs(branches_M: Sequence[float], rule: CostRule | str = CostRule.SOFTMAX) -> Tensor:
    """The cost of each class, Eq. 9.

    A softmax of raw FLOPs is one-hot and changes with the resolution they were counted at, against
    the paper's footnote 3. FLOPs are therefore divided by their sum first. The published code does
    only that division: ``proportional`` keeps it, and is the rule under which published values of
    ``k`` mean the same.

    Args:
        branches_M: ``flops(B) + flops(U_j)`` at any fixed resolution, heaviest first.
        rule: ``softmax`` (of the shares) or ``proportional`` (the shares themselves).

    Returns:
        Costs ``(M,)``, float64, positive, with sum 1.

    Raises:
        ConfigError: an unknown rule, or FLOPs that are not positive and finite.
    """
    flops_M = torch.tensor(list(branches_M), dtype=torch.float64)
    if not len(flops_M) or not bool(((flops_M > 0) & flops_M.isfinite()).all()):
        raise ConfigError(f"branch FLOPs must be positive and finite, not {list(branches_M)}")
    share_M = flops_M / flops_M.sum()
    softmax = CostRule.parse(rule) is CostRule.SOFTMAX
    return share_M.softmax(dim=0) if softmax else share_M

"""A budget: which share of the all-heavy cost a picture may take, and what that buys.

Legend: h w LR size, H W HR size, M classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from pcsr_lightning.inference.flops import ModelMacs, model_macs
from pcsr_lightning.networks import PCSR

ROUNDING = 1e-12
"""Kept back, so that the sum of the parts cannot exceed the budget by a rounding error."""


@dataclass(frozen=True)
class BudgetLimit:
    """What a budget means for one picture, in executed multiply-adds.

    Attributes:
        allowed: what the picture may cost: the budget times ``all_heavy``.
        pixels: what is left of it for the upsamplers' per-pixel part, once the backbone, the
            classifier and the first layer of *every* class on *all* LR pixels are paid. No way of
            running the picture executes more than that, however it is cut.
        floor: the cost with every pixel in the lightest class, the classifier included.
        all_heavy: the cost with every pixel in the heaviest, without the classifier.
    """

    allowed: float
    pixels: float
    floor: float
    all_heavy: float

    @classmethod
    def of(cls, macs: ModelMacs, lr_pixels: int, pixels: int, budget: float) -> BudgetLimit:
        """Of a picture with ``lr_pixels`` LR and ``pixels`` HR pixels.

        Args:
            macs: the costs of a model's parts.
            lr_pixels: ``h * w``.
            pixels: ``H * W``.
            budget: a share of the all-heavy cost, in (0, 1].
        """
        M = len(macs.tail_M)
        all_heavy = 1e9 * macs.flops(lr_pixels, [pixels] + [0] * (M - 1), classified=False).gmacs
        floor = 1e9 * macs.flops(lr_pixels, [0] * (M - 1) + [pixels], classified=M > 1).gmacs
        allowed = budget * all_heavy * (1 - ROUNDING)
        fixed = lr_pixels * (macs.plain.backbone + macs.classifier[0] + sum(macs.project_M))
        fixed += pixels * macs.classifier[1]
        return cls(allowed, allowed - fixed, floor, all_heavy)


def budget_words(
    model: PCSR, lr_size: tuple[int, int], size: tuple[int, int], budget: float
) -> str | None:
    """What to tell of a budget at or near the floor, or at the ceiling; ``None`` in between.

    Args:
        model: the network.
        lr_size: ``(h, w)``.
        size: ``(H, W)`` of the result.
        budget: in (0, 1].
    """
    macs, pixels = model_macs(model), size[0] * size[1]
    limit = BudgetLimit.of(macs, lr_size[0] * lr_size[1], pixels, budget)
    if budget >= 1:
        return "the budget is the ceiling, all-heavy: every pixel went to the heaviest class"
    if model.num_classes == 1:
        return f"the budget of {_percent(budget)} is not kept: this model has one class only"
    floor = _percent(limit.floor / limit.all_heavy)
    if limit.allowed < limit.floor:
        return (
            f"the budget of {_percent(budget)} is below the floor of this model, {floor} of "
            "all-heavy: every pixel went to the lightest class"
        )
    if limit.pixels < pixels * macs.tail_M[-1]:
        # What is left may not pay for the first layer of a heavier class.
        return (
            f"the budget of {_percent(budget)} is so close to the floor of this model, {floor} of "
            "all-heavy, that it may not be used up"
        )
    return None


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"

"""``budget``: the hardest pixels are paid for first, up to a share of the all-heavy cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcsr_lightning.routing.policy import Parameter, RoutingPolicy, register

if TYPE_CHECKING:
    from torch import Tensor

    from pcsr_lightning.routing.config import RoutingConfig
    from pcsr_lightning.routing.cost import PictureMacs
    from pcsr_lightning.routing.histogram import ThresholdHistogram

ROUNDING = 1e-12
"""Kept back, so that the sum of the parts cannot exceed the budget by a rounding error."""


@register
class Budget(RoutingPolicy):
    """Eq. 10 with the smallest ``k`` that the budget pays for, for whole LR pixels.

    The scores are thresholds of ``k``; their mean decides for all HR pixels of an LR pixel.

    See :func:`~pcsr_lightning.routing.budget.assign_by_budget`.

    Attributes:
        allowed: what the picture may cost, in multiply-adds: the budget times all-heavy.
        pixel_M: what an HR pixel of each class costs, heaviest first.
        limit: what is left of it for the upsamplers' per-pixel part, once the backbone, the
            classifier and the first layer of *every* class on *all* LR pixels are paid. No way of
            running the picture executes more than that, however it is cut.
    """

    name = "budget"
    help = (
        "spend at most this share (such as .5 or 50%) of what the heaviest upsampler would take "
        "on every pixel, on the hardest pixels first"
    )
    parameter = Parameter(
        "a share of the all-heavy cost, such as 0.5, above 0 and up to 1",
        valid=lambda share: 0 < share <= 1,
        percent=True,
        metavar="SHARE",
    )
    whole_picture = True
    charges_every_class = True
    per_lr_pixel = True

    def __init__(self, config: RoutingConfig, macs: PictureMacs) -> None:
        super().__init__(config, macs)
        assert config.value is not None
        self.allowed = config.value * macs.all_heavy * (1 - ROUNDING)
        self.pixel_M, self.limit = macs.pixel_M, self.allowed - macs.fixed

    @classmethod
    def fixed(cls, value: float | None) -> int | None:
        # It buys the heaviest everywhere, and there is nothing left to pay a classifier.
        return 0 if value == 1 else None

    def note(self) -> str | None:
        """Of a budget at or near the floor, or at the ceiling."""
        macs, share = self.macs, self.config.value
        assert share is not None
        if share == 1:
            return "the budget is the ceiling, all-heavy: every pixel went to the heaviest class"
        if self.num_classes == 1:
            return f"the budget of {_percent(share)} is not kept: this model has one class only"
        floor = _percent(macs.all_light / macs.all_heavy)
        if self.allowed < macs.all_light:
            return (
                f"the budget of {_percent(share)} is below the floor of this model, {floor} of "
                "all-heavy: every pixel went to the lightest class"
            )
        if self.limit < macs.pixels * macs.pixel_M[-1]:
            # What is left may not pay for the first layer of a heavier class.
            return (
                f"the budget of {_percent(share)} is so close to the floor of this model, {floor} "
                "of all-heavy, that it may not be used up"
            )
        return None

    @property
    def num_scores(self) -> int:
        return self.num_classes  # M - 1 thresholds, and the number of HR pixels

    def score(self, logits_BMHW: Tensor) -> Tensor:
        from pcsr_lightning.routing.budget import class_thresholds

        return class_thresholds(logits_BMHW, self.costs_M)

    def assign(self, score_Bchw: Tensor) -> Tensor:
        from pcsr_lightning.routing.budget import assign_by_budget

        return assign_by_budget(score_Bchw, self.pixel_M, self.limit)

    def histogram(self) -> ThresholdHistogram:
        from pcsr_lightning.routing.histogram import ThresholdHistogram

        return ThresholdHistogram(self.pixel_M, self.limit, self.macs.pixels)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"

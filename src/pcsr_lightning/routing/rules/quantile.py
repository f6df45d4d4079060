"""``quantile``: a share of each picture's pixels, the hardest, takes the heaviest class."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from pcsr_lightning.routing.policy import Parameter, RoutingPolicy, register

if TYPE_CHECKING:
    from torch import Tensor

    from pcsr_lightning.routing.histogram import ThresholdHistogram


@register
class Quantile(RoutingPolicy):
    """The hardest pixels go to the heaviest class, all others to the lightest. Not in the paper.

    How hard a pixel is, its :func:`~pcsr_lightning.routing.adm.difficulty` says. The arithmetic is
    that of a budget in which a heavy pixel costs 1 and a light one nothing. So whole LR pixels are
    decided, the share is exact to one of them, and of equally hard ones those that come first in
    the picture are taken.
    """

    name = "quantile"
    help = "send this share (such as .3 or 30%) of the pixels, the hardest, to the heaviest class"
    parameter = Parameter(
        "a share of the pixels, such as 0.3, from 0 to 1",
        valid=lambda share: 0 <= share <= 1,
        percent=True,
        metavar="SHARE",
    )
    whole_picture = True
    per_lr_pixel = True

    @classmethod
    def fixed(cls, value: float | None) -> int | None:
        return 0 if value == 1 else None

    @cached_property
    def prices_M(self) -> list[float]:
        """What a pixel of each class costs; classes in between are never taken."""
        return [1.0] + [0.0] * (self.num_classes - 1)

    @property
    def limit(self) -> float:
        """How many pixels may be heavy."""
        assert self.config.value is not None
        return float(round(self.config.value * self.macs.pixels))

    @property
    def num_scores(self) -> int:
        return self.num_classes  # M - 1 thresholds, and the number of HR pixels

    def score(self, logits_BMHW: Tensor) -> Tensor:
        from pcsr_lightning.routing.adm import difficulty

        # One threshold for all classes: a pixel is in the first class or in the last.
        return difficulty(logits_BMHW)[:, None].expand(-1, self.num_classes - 1, -1, -1)

    def assign(self, score_Bchw: Tensor) -> Tensor:
        from pcsr_lightning.routing.budget import assign_by_budget

        return assign_by_budget(score_Bchw, self.prices_M, self.limit)

    def histogram(self) -> ThresholdHistogram:
        from pcsr_lightning.routing.histogram import ThresholdHistogram

        return ThresholdHistogram(self.prices_M, self.limit, self.macs.pixels)

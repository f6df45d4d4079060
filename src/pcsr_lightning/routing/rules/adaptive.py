"""``adaptive``: Adaptive Decision Making, each picture's own statistics decide (Appendix A)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcsr_lightning.routing.policy import RoutingPolicy, register

if TYPE_CHECKING:
    from torch import Tensor

    from pcsr_lightning.routing.histogram import DifficultyHistogram


@register
class Adaptive(RoutingPolicy):
    """Difficulties are the score; see :func:`~pcsr_lightning.routing.adm.assign_adaptive`."""

    name = "adaptive"
    help = "let the picture's own statistics decide"
    whole_picture = True

    def score(self, logits_BMHW: Tensor) -> Tensor:
        from pcsr_lightning.routing.adm import difficulty

        return difficulty(logits_BMHW)[:, None]

    def assign(self, score_BcHW: Tensor) -> Tensor:
        from pcsr_lightning.routing.adm import assign_by_difficulty

        return assign_by_difficulty(score_BcHW[:, 0], self.num_classes)

    def histogram(self) -> DifficultyHistogram:
        from pcsr_lightning.routing.histogram import DifficultyHistogram

        return DifficultyHistogram(self.num_classes)

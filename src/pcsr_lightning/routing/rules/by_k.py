"""``k``: each pixel by itself, its probabilities against the costs of the classes (Eq. 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcsr_lightning.routing.policy import Parameter, RoutingPolicy, register

if TYPE_CHECKING:
    from torch import Tensor


@register
class ByK(RoutingPolicy):
    """See :func:`~pcsr_lightning.routing.by_k.assign_by_k`."""

    name = "k"
    help = "more (k < 0) or fewer (k > 0) pixels to the heavy upsamplers (default: 0)"
    parameter = Parameter("a finite number", default=0.0)

    def assign_pixels(self, logits_BMHW: Tensor) -> Tensor:
        from pcsr_lightning.routing.by_k import assign_by_k

        assert self.config.value is not None
        return assign_by_k(logits_BMHW, self.costs_M, self.config.value)

    def logit_biases(self) -> list[float]:
        from pcsr_lightning.routing.by_k import logit_biases

        assert self.config.value is not None
        return logit_biases(self.costs_M, self.config.value)

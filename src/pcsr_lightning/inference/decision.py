"""Which class each pixel takes under a routing, strip by strip or over the whole picture.

Legend: B batch, M classes, c values kept of a pixel, H W HR size. The last dimensions may be any.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference.budget import BudgetLimit
from pcsr_lightning.inference.flops import ModelMacs
from pcsr_lightning.inference.routing_choice import Routing
from pcsr_lightning.routing import (
    DifficultySurvey,
    KeySurvey,
    Survey,
    assign_by_difficulty,
    assign_by_k,
    assign_by_keys,
    class_costs,
    difficulty,
    upgrade_keys,
)


class Decision:
    """A routing for one model and picture size.

    Args:
        routing: what was asked for.
        macs: what the model's parts cost.
        lr_size: ``(h, w)``.
        size: ``(H, W)``.

    Raises:
        ConfigError: the routing names a class that the network does not have.
    """

    def __init__(
        self, routing: Routing, macs: ModelMacs, lr_size: tuple[int, int], size: tuple[int, int]
    ) -> None:
        self.routing, self.macs, self.num_classes = routing, macs, len(macs.tail_M)
        if routing.single is not None and routing.single >= self.num_classes:
            raise ConfigError(
                f"there is no class {routing.single}: this network has {self.num_classes}, from 0 "
                f"(heaviest) to {self.num_classes - 1}"
            )
        scale = (size[0] / lr_size[0], size[1] / lr_size[1])
        self._costs_M = class_costs(macs.plain.branches(scale), routing.cost)
        self._pixels = size[0] * size[1]
        if routing.budget is not None:
            lr_pixels = lr_size[0] * lr_size[1]
            self._limit = BudgetLimit.of(macs, lr_pixels, self._pixels, routing.budget).pixels

    @property
    def single(self) -> int | None:
        """The one class that every pixel takes, or ``None`` where each has a choice."""
        return 0 if self.num_classes == 1 else self.routing.single

    @property
    def needs_whole(self) -> bool:
        """Whether a pixel's class depends on all others: adaptive and budget."""
        return self.single is None and self.routing.mode in ("adaptive", "budget")

    @property
    def kept(self) -> int:
        """How many values of a pixel :meth:`evidence` keeps."""
        return self.num_classes - 1 if self.routing.mode == "budget" else 1

    def evidence(self, logits_BMHW: Tensor) -> Tensor:
        """What is kept of a part's logits until the whole picture is known: ``(B, c, H, W)``.

        Adaptive: difficulties. Budget: up to which ``k`` each class is taken.
        """
        if self.routing.mode == "budget":
            return upgrade_keys(logits_BMHW, self._costs_M)
        return difficulty(logits_BMHW)[:, None]

    def settle(self, evidence_BcHW: Tensor) -> Tensor:
        """The whole pictures' classes from their whole evidence: ``(B, H, W)``, uint8."""
        if self.routing.mode == "budget":
            return assign_by_keys(evidence_BcHW, self.macs.tail_M, self._limit)
        return assign_by_difficulty(evidence_BcHW[:, 0], self.num_classes)

    def survey(self) -> Survey:
        """What counts a picture's evidence instead of keeping it."""
        if self.routing.mode == "budget":
            return KeySurvey(self.macs.tail_M, self._limit, self._pixels)
        return DifficultySurvey(self.num_classes)

    def counts_every_class(self, mixed: bool) -> bool:
        """Whether each class's first layer is paid for on all of the pictures.

        A budget does, unless there is a single class: what it buys must not depend on the strips.

        Args:
            mixed: whether pixels take several classes.
        """
        return self.routing.mode == "budget" and self.single is None and mixed

    def at_once(self, logits_BMHW: Tensor) -> Tensor:
        """The classes of any part of a picture, where pixels do not depend on each other."""
        return assign_by_k(logits_BMHW, self._costs_M, self.routing.k)

    def whole(self, logits_BMHW: Tensor) -> Tensor:
        """The classes of whole pictures."""
        if self.needs_whole:
            return self.settle(self.evidence(logits_BMHW))
        return self.at_once(logits_BMHW)

    def constant(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """The one class of every pixel."""
        return torch.full(shape, self.single or 0, dtype=torch.uint8, device=device)

"""The first pass over pictures whose classes depend on all their pixels: scores, kept or counted.

Legend: B batch, c scores of a pixel, H W size and n rows: of HR pixels, or of LR pixels where the
rule decides those (:attr:`~pcsr_lightning.routing.policy.RoutingPolicy.per_lr_pixel`).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pcsr_lightning.routing.histogram import Assigner
from pcsr_lightning.routing.policy import RoutingPolicy

SCORE_BYTES = 2**27
"""Up to so many bytes, the scores of every pixel are kept. Adaptively that is an 8K result; under a
budget, 16 million LR pixels with two classes. Of larger pictures scores are counted, and the
classifier runs a second time."""


class ThresholdAssigner:
    """Gives the pixels of a batch their classes, strip by strip, from top to bottom.

    Attributes:
        mixed: whether several classes may come out.
    """

    def __init__(self, assigner_B: list[Assigner]) -> None:
        self._assigner_B, self._left_B = assigner_B, [each.left for each in assigner_B]
        self.mixed = any(each.mixed for each in assigner_B)

    def assign(self, score_BcnW: Tensor) -> Tensor:
        """The next rows' classes, ``(B, n, W)``; they are next until :meth:`commit` is called."""
        pairs = zip(self._assigner_B, score_BcnW, strict=True)
        found = [assigner.assign(score_cnW) for assigner, score_cnW in pairs]
        self._left_B = [left for _, left in found]
        return torch.stack([class_nW for class_nW, _ in found])

    def commit(self) -> None:
        """The rows that were last asked for are done."""
        for assigner, left in zip(self._assigner_B, self._left_B, strict=True):
            assigner.left = left


class FirstPass(Protocol):
    """Takes the scores of a picture's strips."""

    def put(self, top: int, score_BcnW: Tensor) -> None:
        """Takes rows from ``top`` on."""

    def finish(self) -> Tensor | ThresholdAssigner:
        """Every pixel's class, ``(B, H, W)``; or what to ask for it."""


class ScoreBuffer:
    """Keeps every pixel's scores.

    Args:
        policy: which class each pixel takes.
        batch: ``B``.
        size: ``(H, W)``.
        device: where they are.
    """

    def __init__(
        self, policy: RoutingPolicy, batch: int, size: tuple[int, int], device: torch.device
    ) -> None:
        self._policy = policy
        self._score_BcHW = torch.empty(batch, policy.num_scores, *size, device=device)

    def put(self, top: int, score_BcnW: Tensor) -> None:
        """See :class:`FirstPass`."""
        self._score_BcHW[:, :, top : top + score_BcnW.shape[2]] = score_BcnW

    def finish(self) -> Tensor:
        """Every pixel's class."""
        return self._policy.assign(self._score_BcHW)


class ScoreCounts:
    """Counts scores in a histogram for each picture.

    Args:
        policy: which class each pixel takes.
        batch: ``B``.
    """

    def __init__(self, policy: RoutingPolicy, batch: int) -> None:
        self._histogram_B = [policy.histogram() for _ in range(batch)]

    def put(self, top: int, score_BcnW: Tensor) -> None:
        """See :class:`FirstPass`."""
        for histogram, score_cnW in zip(self._histogram_B, score_BcnW, strict=True):
            histogram.add(score_cnW)

    def finish(self) -> ThresholdAssigner:
        """What to ask for classes."""
        return ThresholdAssigner([histogram.assigner() for histogram in self._histogram_B])


def first_pass(
    policy: RoutingPolicy, batch: int, size: tuple[int, int], device: torch.device
) -> FirstPass:
    """Keeps the scores, or counts them if they are larger than :data:`SCORE_BYTES`."""
    if 4 * batch * policy.num_scores * size[0] * size[1] > SCORE_BYTES:
        return ScoreCounts(policy, batch)
    return ScoreBuffer(policy, batch, size, device)

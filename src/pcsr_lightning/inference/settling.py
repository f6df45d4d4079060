"""What is remembered of a first pass over pictures whose classes depend on all of their pixels.

Legend: B batch, c values of a pixel, H W HR size, n HR rows.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pcsr_lightning.inference.decision import Decision
from pcsr_lightning.routing import Rule

EVIDENCE_BYTES = 2**27
"""Up to so many bytes, numbers are kept for every pixel. That is an 8K picture with two classes;
for larger ones pixels are counted, and the classifier runs a second time."""


class Rules:
    """Rules that classes are asked of strip by strip, in order: one for each picture.

    Attributes:
        mixed: whether several classes may come out.
    """

    def __init__(self, rules_B: list[Rule]) -> None:
        self._rules_B, self._left_B = rules_B, [rule.left for rule in rules_B]
        self.mixed = any(rule.mixed for rule in rules_B)

    def classes(self, evidence_BcnW: Tensor) -> Tensor:
        """The next rows' classes, ``(B, n, W)``; they are next until :meth:`commit` is called."""
        pairs = zip(self._rules_B, evidence_BcnW, strict=True)
        found = [rule.classes(evidence_cnW) for rule, evidence_cnW in pairs]
        self._left_B = [left for _, left in found]
        return torch.stack([class_nW for class_nW, _ in found])

    def commit(self) -> None:
        """The rows that were last asked for count."""
        for rule, left in zip(self._rules_B, self._left_B, strict=True):
            rule.left = left


class FirstPass(Protocol):
    """Takes what the classifier says of each strip."""

    def put(self, hr_top: int, evidence_BcnW: Tensor) -> None:
        """Takes rows from ``hr_top`` on."""

    def settle(self) -> Tensor | Rules:
        """Every pixel's class, ``(B, H, W)``; or the rules to ask for it."""


class Kept:
    """Every pixel's numbers.

    Args:
        decision: which class each pixel takes.
        batch: ``B``.
        size: ``(H, W)``.
        device: where they are.
    """

    def __init__(
        self, decision: Decision, batch: int, size: tuple[int, int], device: torch.device
    ) -> None:
        self._decision = decision
        self._evidence_BcHW = torch.empty(batch, decision.kept, *size, device=device)

    def put(self, hr_top: int, evidence_BcnW: Tensor) -> None:
        """See :class:`FirstPass`."""
        self._evidence_BcHW[:, :, hr_top : hr_top + evidence_BcnW.shape[2]] = evidence_BcnW

    def settle(self) -> Tensor:
        """Every pixel's class."""
        return self._decision.settle(self._evidence_BcHW)


class Counted:
    """How many pixels have about the same numbers.

    Args:
        decision: which class each pixel takes.
        batch: ``B``.
    """

    def __init__(self, decision: Decision, batch: int) -> None:
        self._surveys_B = [decision.survey() for _ in range(batch)]

    def put(self, hr_top: int, evidence_BcnW: Tensor) -> None:
        """See :class:`FirstPass`."""
        for survey, evidence_cnW in zip(self._surveys_B, evidence_BcnW, strict=True):
            survey.add(evidence_cnW)

    def settle(self) -> Rules:
        """The rules to ask for classes."""
        return Rules([survey.settle() for survey in self._surveys_B])


def first_pass(
    decision: Decision, batch: int, size: tuple[int, int], device: torch.device
) -> FirstPass:
    """What suits the size of the pictures."""
    if 4 * batch * decision.kept * size[0] * size[1] > EVIDENCE_BYTES:
        return Counted(decision, batch)
    return Kept(decision, batch, size, device)

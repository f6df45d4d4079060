"""Adaptive and budget over pictures whose scores do not fit into memory: counts instead.

A first pass counts the scores of all pixels in a histogram. It ends with an assigner, which a
second pass asks for classes. Memory does not grow with the picture. Classes differ from those of
the exact scores only at pixels that fall into one of the histogram's narrow bins.

Legend: M classes, T = M - 1 thresholds, c scores of a pixel, n rows of a strip and W its width (HR
pixels; LR pixels under a budget), N bins, K those of them that are not empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from pcsr_lightning.routing.adm import BINS, classes_of, kmeans_thresholds
from pcsr_lightning.routing.budget import check_macs, classes_at, first_too_dear, ordered

FINE_BITS = 20
"""Difficulties are counted in 2^20 bins over [0, 1]: where they spread over more than 1/256 of
that, :data:`~pcsr_lightning.routing.adm.BINS` of them are told apart as well as without."""
THRESHOLD_BITS = 22
"""Class thresholds are told apart by their upper 22 bits: sign, exponent and 13 of the mantissa, a
step of 2^-13 of their value."""


class Assigner(Protocol):
    """Gives pixels their classes, strip by strip, in raster order.

    Attributes:
        left: what ties may still cost; only the assigner itself uses it.
        mixed: whether several classes may come out.
    """

    left: float
    mixed: bool

    def assign(self, score_cnW: Tensor) -> tuple[Tensor, float]:
        """The next rows' classes, ``(n, W)`` uint8, and the new ``left`` once they count."""


class ScoreHistogram(Protocol):
    """Counts the scores of a picture's pixels."""

    def add(self, score_cnW: Tensor) -> None:
        """Adds some rows, in any order."""

    def assigner(self) -> Assigner:
        """The assigner, once all rows were added."""


class DifficultyHistogram:
    """Adaptive Decision Making, see :func:`~pcsr_lightning.routing.adm_adaptive`.

    The smallest and largest difficulty are exact; between them, those that k-means looks at are off
    by at most half a fine bin, 2^-21.

    Args:
        num_classes: ``M``.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._counts_N: Tensor | None = None
        self._low, self._high = float("inf"), float("-inf")

    def add(self, score_1nW: Tensor) -> None:
        """Adds rows of :func:`~pcsr_lightning.routing.adm.difficulty`."""
        low, high = torch.aminmax(score_1nW)
        self._low, self._high = min(self._low, float(low)), max(self._high, float(high))
        bins = (score_1nW.flatten() * 2**FINE_BITS).long().clamp_(0, 2**FINE_BITS - 1)
        each_one = bins.new_ones(()).expand_as(bins)
        self._counts_N = _counted(self._counts_N, bins, each_one, 2**FINE_BITS)

    def assigner(self) -> DifficultyAssigner:
        """The borders between the groups."""
        assert self._counts_N is not None
        if not self._high > self._low:
            return DifficultyAssigner(self._num_classes, self._low, 0.0, torch.empty(0))
        span = self._high - self._low
        centre_N = (torch.arange(2**FINE_BITS, dtype=torch.float64) + 0.5) / 2**FINE_BITS
        unit_N = ((centre_N - self._low) / span).clamp(0, 1)
        bins_N = (unit_N * BINS).long().clamp_(max=BINS - 1)
        counts = torch.bincount(bins_N, self._counts_N.cpu().double(), minlength=BINS)
        thresholds = kmeans_thresholds(counts, self._num_classes)
        return DifficultyAssigner(self._num_classes, self._low, span, thresholds)


@dataclass
class DifficultyAssigner:
    """Classes by the borders between groups of difficulties.

    Attributes:
        num_classes: ``M``.
        low: the smallest difficulty of the picture.
        span: from there to the largest; 0 where all are the same.
        thresholds: between the groups, in parts of ``span``.
    """

    num_classes: int
    low: float
    span: float
    thresholds: Tensor
    left: float = 0.0
    mixed: bool = True

    def assign(self, score_1nW: Tensor) -> tuple[Tensor, float]:
        """See :class:`Assigner`."""
        d_nW = score_1nW[0]
        if self.span <= 0:
            return torch.full_like(d_nW, self.num_classes - 1, dtype=torch.uint8), 0.0
        return classes_of((d_nW - self.low) / self.span, self.thresholds, self.num_classes), 0.0


class ThresholdHistogram:
    """A budget, see :func:`~pcsr_lightning.routing.budget.assign_by_budget`.

    The budget is kept, and used up, just as exactly. But thresholds that :data:`THRESHOLD_BITS` do
    not tell apart count as the same: of the pixels at the cutoff, those that come first in the
    picture are paid for, even if their thresholds are a little lower than others'.

    Args:
        macs_M: what one pixel of each class costs, never rising.
        limit: what the picture's pixels may cost together.
        pixels: how many it has.

    Raises:
        ConfigError: ``limit`` is NaN, or the costs rise.
    """

    def __init__(self, macs_M: Sequence[float], limit: float, pixels: int) -> None:
        check_macs(len(macs_M), macs_M, limit)
        self._macs_M, self._left = list(macs_M), limit - pixels * macs_M[-1]
        self._counts_N: list[Tensor | None] = [None] * (len(macs_M) - 1)

    def add(self, score_cnW: Tensor) -> None:
        """Adds rows of LR pixels: class thresholds, and the number of HR pixels behind them."""
        *threshold_T, area_nW = score_cnW
        area = area_nW.flatten().long()
        for j, threshold_nW in enumerate(threshold_T):
            bins = _coarse(threshold_nW).flatten().long()
            self._counts_N[j] = _counted(self._counts_N[j], bins, area, 2**THRESHOLD_BITS)

    def assigner(self) -> BudgetAssigner:
        """The cutoff, and what is left for the pixels at it."""
        if self._left < 0:
            return BudgetAssigner(self._macs_M, 2**THRESHOLD_BITS, 0.0, mixed=False)
        counts_TN = [counts.cpu() for counts in self._counts_N if counts is not None]
        # Most bins are empty.
        used_K = torch.stack([counts > 0 for counts in counts_TN]).any(0).nonzero().squeeze(1)
        used_TK = torch.stack([counts[used_K] for counts in counts_TN])
        steps_T = torch.tensor([a - b for a, b in pairwise(self._macs_M)], dtype=torch.float64)
        found = first_too_dear(used_TK, steps_T, self._left)
        if found is None:
            return BudgetAssigner(self._macs_M, -1, 0.0, mixed=False)
        return BudgetAssigner(self._macs_M, int(used_K[found[0]]), found[1], mixed=True)


@dataclass
class BudgetAssigner:
    """Classes by a budget's cutoff.

    Attributes:
        macs_M: see :class:`ThresholdHistogram`.
        cutoff: the bin at which not all can be paid.
        left: what pixels in it may still cost.
    """

    macs_M: list[float]
    cutoff: int
    left: float
    mixed: bool

    def assign(self, score_cnW: Tensor) -> tuple[Tensor, float]:
        """See :class:`Assigner`."""
        prices_M = torch.tensor(self.macs_M, dtype=torch.float64, device=score_cnW.device)
        return classes_at(_coarse(score_cnW[:-1]), score_cnW[-1], self.cutoff, prices_M, self.left)


def _coarse(thresholds: Tensor) -> Tensor:
    """Their bins, from 0 on, in the same order."""
    bins: Tensor = (ordered(thresholds) >> (32 - THRESHOLD_BITS)) + 2 ** (THRESHOLD_BITS - 1)
    return bins


def _counted(counts_N: Tensor | None, bins: Tensor, weights: Tensor, num_bins: int) -> Tensor:
    """Counts with those of more pixels. In place: as many new ones would cost more than they."""
    if counts_N is None:
        counts_N = torch.zeros(num_bins, dtype=torch.int64, device=bins.device)
    return counts_N.scatter_add_(0, bins, weights)

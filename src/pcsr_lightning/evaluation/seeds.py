"""Mean and standard deviation over runs that differ in nothing but their seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeVar

from pcsr_lightning.evaluation.tables import UNKNOWN, Column

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """Numbers of several runs.

    Attributes:
        mean: of them.
        deviation: their standard deviation, with ``n - 1`` in the denominator; ``None`` of one.
        count: how many they are.
    """

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread | None:
        """Of these numbers; ``None`` where one of them is not known or not finite."""
        known = [value for value in values if value is not None and math.isfinite(value)]
        if not known or len(known) < len(values):
            return None
        return cls(fmean(known), stdev(known) if len(known) > 1 else None, len(known))

    def text(self, write: Callable[[float], str]) -> str:
        """``28.953 +- 0.012``; no sign is written before a deviation."""
        mean = write(self.mean)
        if self.deviation is None:
            return mean
        return f"{mean} +- {write(self.deviation).removeprefix('+')}"


def by_seed(
    runs: Iterable[T], group: Callable[[T], Hashable], seed: Callable[[T], str]
) -> list[list[T]]:
    """Runs that differ in their seed only, together, in the order in which they begin.

    Args:
        runs: in any order.
        group: what is equal in such runs.
        seed: of a run; empty if it has none.
    """
    groups: dict[Hashable, list[T]] = {}
    for run in runs:
        groups.setdefault(group(run), []).append(run)
    found: list[list[T]] = []
    for members in groups.values():
        seeds = [seed(run) for run in members]
        # The same seed twice: they differ in something else, or in nothing at all.
        whole = len(set(seeds)) == len(seeds) and "" not in seeds
        found += [members] if whole else [[run] for run in members]
    return found


def paired(first: Mapping[str, float | None], other: Mapping[str, float | None]) -> Spread | None:
    """The differences between runs of equal seeds, ``other`` minus ``first``.

    ``None`` if they are not of the same seeds, two at least.

    Args:
        first: a number of each seed.
        other: likewise.
    """
    if first.keys() != other.keys() or len(first) < 2:
        return None
    pairs = [(first[seed], other[seed]) for seed in first]
    return Spread.of([None if a is None or b is None else b - a for a, b in pairs])


def spread_columns(
    key: str,
    heading: str,
    spread: Callable[[T], Spread | None],
    write: Callable[[float], str],
) -> list[Column[T]]:
    """A column ``mean +- deviation``, and for CSV one more with the deviation.

    Args:
        key: of the number in CSV.
        heading: of the column.
        spread: of a row.
        write: a number as text.
    """

    def cell(row: T) -> str:
        found = spread(row)
        return UNKNOWN if found is None else found.text(write)

    def mean(row: T) -> float | None:
        found = spread(row)
        return None if found is None else found.mean

    def deviation(row: T) -> float | None:
        found = spread(row)
        return None if found is None else found.deviation

    return [
        Column(heading, cell, value=mean, key=key),
        Column(f"{key}_sd", cell, value=deviation, csv_only=True),
    ]

"""A convolutional network fed a few rows at a time, exactly: no row is ever computed twice.

Every layer keeps the few rows that its kernel still needs (a line buffer), so strips need no halo
that would have to be computed again, and memory follows the strip, not the picture.

Legend: r rows, w columns, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pcsr_lightning.streaming.steps import RowPlan, Step
from pcsr_lightning.streaming.window import RowWindow

_ENDLESS = 2**60


@dataclass
class _Value:
    """What one run knows of a value.

    ``window`` is ``None`` where every reader takes all rows at once: those are handed over as they
    are.
    """

    window: RowWindow | None
    readers: list[Step]
    made: int = 0
    rows: Tensor = field(default_factory=lambda: torch.empty(0))
    rows_start: int = 0


@dataclass(frozen=True)
class _Window:
    """What is kept of a value.

    Attributes:
        channels: of it.
        growth: its rows (and columns) for each of the picture.
        margin: rows of padding.
        kept: rows that later steps may still need when a strip is done.
    """

    channels: int
    growth: int
    margin: int
    kept: int


def _growths(plan: RowPlan) -> dict[int, int]:
    """Every value's rows for each of the picture."""
    growth = {0: 1}
    for step in plan.steps:
        growth[step.out] = growth[step.inputs[0]] * step.growth
    return growth


def _windows(plan: RowPlan, channels: int) -> dict[int, _Window | None]:
    """The window of every value; ``None`` where all readers take all rows at once."""
    size, lag, growth = {0: channels}, {0: 0}, _growths(plan)
    for step in plan.steps:
        size[step.out] = step.channels
        lag[step.out] = _reach(step, lag) * step.growth
    windows: dict[int, _Window | None] = {}
    for value in lag:
        readers = [s for s in plan.steps if value in s.inputs]
        waits = [_reach(s, lag) - lag[value] + s.halo for s in readers]
        if value != 0 and not any(waits):
            windows[value] = None
        else:
            margin = max((s.margin for s in readers), default=0)
            kept = max(waits, default=0)
            windows[value] = _Window(size[value], growth[value], margin, kept)
    return windows


def _reach(step: Step, lag: dict[int, int]) -> int:
    """How many rows behind the picture a step's input rows are when it takes them."""
    return max(lag[v] for v in step.inputs) + step.halo


def stream_values(plan: RowPlan, rows: int, channels: int = 3) -> int:
    """How many numbers a stream keeps for each column of the picture, about.

    Args:
        plan: the network.
        rows: of a strip.
        channels: of the picture.
    """
    total = 0
    for window in _windows(plan, channels).values():
        if window is not None:
            held = window.kept + max(2 * rows * window.growth, window.kept // 2)
            total += held * window.growth * window.channels
    # What single steps make on the way.
    return total + 8 * rows * max(s.channels * s.growth**2 for s in plan.steps)


class RowStream:
    """One picture's way through a network.

    Args:
        plan: the network.
        width: of the picture.
        rows: how many rows come at a time, about.
        channels: of the picture.
        dtype: of the arithmetic.
        device: where it is done.
    """

    def __init__(
        self,
        plan: RowPlan,
        width: int,
        rows: int,
        channels: int = 3,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.plan = plan
        self._height = _ENDLESS  # until the last row has come
        self._rows_at_a_time = rows
        self._growth = _growths(plan)
        self._values: dict[int, _Value] = {}
        for value, kept in _windows(plan, channels).items():
            window = None
            if kept is not None:
                g = kept.growth
                window = RowWindow(width * g, kept.channels, rows * g, dtype, kept.margin, device)
            readers = [s for s in plan.steps if value in s.inputs]
            self._values[value] = _Value(window, readers)

    def push(self, rows_rwC: Tensor, last: bool) -> Iterator[Tensor]:
        """Takes the next rows and gives all rows of the result that they complete.

        ``(r, w, C) -> (r', w', C')``, as often as it takes; each is valid until the next is asked
        for. All of them must be asked for before the next rows are pushed.
        """
        picture = self._values[0]
        assert picture.window is not None
        picture.window.add(len(rows_rwC)).copy_(rows_rwC)
        picture.made += len(rows_rwC)
        if last:
            self._height = picture.made
            picture.window.close()
        more = True
        while more:
            # At the end, what the layers still hold back comes in strips as low as the others.
            more = False
            for step in self.plan.steps:
                out, more_of_it = self._advance(step)
                more = more or more_of_it
            for number, value in self._values.items():
                if value.window is not None and value.readers:
                    value.window.forget(min(self._needed(s, number) for s in value.readers))
            if len(out):
                yield out

    def _advance(self, step: Step) -> tuple[Tensor, bool]:
        """The rows a step can make now, and whether it could make more than fit a strip."""
        value, g = self._values[step.out], step.growth
        start, made = value.made, min(self._values[v].made for v in step.inputs)
        complete = made == self._height * self._growth[step.inputs[0]]
        could = (made if complete else max(0, made - step.halo)) * g
        stop = min(could, start + self._rows_at_a_time * self._growth[step.out])
        value.rows_start = start
        if stop <= start:
            value.rows = torch.empty(0)
            return value.rows, False
        into = None if value.window is None else value.window.add(stop - start)
        value.rows = step.run(self._rows, start, stop, into, made if complete else _ENDLESS)
        value.made = stop
        if value.window is not None and stop == self._height * self._growth[step.out]:
            value.window.close()
        return value.rows, stop < could

    def _rows(self, number: int, start: int, stop: int) -> Tensor:
        value = self._values[number]
        if value.window is not None:
            return value.window[start:stop]
        return value.rows[start - value.rows_start : stop - value.rows_start]

    def _needed(self, step: Step, number: int) -> int:
        """The first row of a value that a step will still read."""
        return self._values[step.out].made // step.growth - step.halo

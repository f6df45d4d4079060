"""A convolutional network fed a few rows at a time, exactly: no row is ever computed twice.

Every layer keeps the few rows that its kernel still needs (a line buffer), so strips need no halo
that would have to be computed again, and memory follows the strip, not the picture.

Legend: r rows, w columns, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pcsr_lightning.inference.row_plan import RowPlan
from pcsr_lightning.inference.row_steps import Step
from pcsr_lightning.inference.row_window import RowWindow

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
        self._last = False
        self._done: dict[int, int] = {step.out: 0 for step in plan.steps}
        made_by = {step.out: step for step in plan.steps}
        lag, growth = {0: 0}, {0: 1}
        for step in plan.steps:
            growth[step.out] = growth[step.inputs[0]] * step.growth
            lag[step.out] = self._reach(step, lag) * step.growth
        self._values: dict[int, _Value] = {}
        for value in lag:
            readers = [s for s in plan.steps if value in s.inputs]
            at_once = value != 0 and all(
                s.halo == 0 and self._reach(s, lag) == lag[value] for s in readers
            )
            window = None
            if not at_once:
                margin = max((s.margin for s in readers), default=0)
                size = channels if value == 0 else made_by[value].channels
                g = growth[value]
                window = RowWindow(width * g, size, rows * g, dtype, margin, device)
            self._values[value] = _Value(window, readers)

    @staticmethod
    def _reach(step: Step, lag: dict[int, int]) -> int:
        return max(lag[v] for v in step.inputs) + step.halo

    def push(self, rows_rwC: Tensor, last: bool) -> Tensor:
        """Takes the next rows and gives all rows of the result that they complete.

        ``(r, w, C) -> (r', w', C')``. The result may have no row, and is valid until the next call.
        """
        picture = self._values[0]
        assert picture.window is not None
        picture.window.add(len(rows_rwC)).copy_(rows_rwC)
        picture.made += len(rows_rwC)
        self._last = last
        if last:
            picture.window.close()
        out = rows_rwC.new_empty(0)
        for step in self.plan.steps:
            out = self._advance(step)
        for number, value in self._values.items():
            if value.window is not None and value.readers:
                value.window.forget(min(self._needed(s, number) for s in value.readers))
        return out

    def _advance(self, step: Step) -> Tensor:
        value = self._values[step.out]
        start, g = value.made, step.growth
        available = min(self._values[v].made for v in step.inputs)
        stop = (available if self._last else max(0, available - step.halo)) * g
        value.rows_start = start
        if stop <= start:
            value.rows = torch.empty(0)
            return value.rows
        height = available if self._last else _ENDLESS
        into = None if value.window is None else value.window.add(stop - start)
        value.rows = step.run(self._rows, start, stop, into, height)
        value.made = self._done[step.out] = stop
        if self._last and value.window is not None:
            value.window.close()
        return value.rows

    def _rows(self, number: int, start: int, stop: int) -> Tensor:
        value = self._values[number]
        if value.window is not None:
            return value.window[start:stop]
        return value.rows[start - value.rows_start : stop - value.rows_start]

    def _needed(self, step: Step, number: int) -> int:
        """The first row of a value that a step will still read."""
        return self._done[step.out] // step.growth - step.halo

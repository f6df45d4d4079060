"""Runs a row plan on an image that arrives a few rows at a time; no row is computed twice.

Every layer has a line buffer of the rows that its kernel still needs. Strips therefore need no
overlap, and memory depends on the strip's size and not on the image's height.

Legend: r rows, w columns, C channels of the input, D channels of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pcsr_lightning.streaming.steps import RowPlan, Step
from pcsr_lightning.streaming.window import RowWindow

_UNKNOWN_HEIGHT = 2**60
BLOCK_VALUES = 2**22
"""Values of an upscaled result that are computed at a time: larger tensors leave a CPU's cache, and
the operating system has to map them anew for each strip."""


@dataclass
class _Value:
    """State of one value during a run.

    Attributes:
        window: its line buffer; ``None`` where every reader takes each strip at once, which is
            then in ``rows``, from row ``rows_start`` on.
        readers: the steps that read it.
        computed: how many of its rows have been computed.
    """

    window: RowWindow | None
    readers: list[Step]
    computed: int = 0
    rows: Tensor = field(default_factory=lambda: torch.empty(0))
    rows_start: int = 0


@dataclass(frozen=True)
class _Buffer:
    """Size of a value's line buffer.

    Attributes:
        row_shape: of the value, from its width.
        factor: its rows (and columns) per row of the input.
        padding: rows of zeros above and below.
        kept: rows that later steps may still need after a strip.
    """

    row_shape: Callable[[int], tuple[int, int]]
    factor: int
    padding: int
    kept: int


def _factors(plan: RowPlan) -> dict[int, int]:
    """Rows of every value per row of the input."""
    factors = {0: 1}
    for step in plan.steps:
        factors[step.out] = factors[step.inputs[0]] * step.upscale_factor
    return factors


def _buffers(plan: RowPlan) -> dict[int, _Buffer | None]:
    """The line buffer of every value; ``None`` where all readers take each strip at once."""
    lag, factors = {0: 0}, _factors(plan)
    shapes: dict[int, Callable[[int], tuple[int, int]]] = {0: lambda w: (w, plan.in_channels)}
    for step in plan.steps:
        shapes[step.out] = step.row_shape
        lag[step.out] = _input_lag(step, lag) * step.upscale_factor
    buffers: dict[int, _Buffer | None] = {}
    for value in lag:
        readers = [s for s in plan.steps if value in s.inputs]
        waits = [_input_lag(s, lag) - lag[value] + s.halo for s in readers]
        if value != 0 and not any(waits):
            buffers[value] = None
        else:
            padding = max((s.padding for s in readers), default=0)
            kept = max(waits, default=0)
            buffers[value] = _Buffer(shapes[value], factors[value], padding, kept)
    return buffers


def _input_lag(step: Step, lag: dict[int, int]) -> int:
    """By how many rows a step's inputs lag behind the network's input when it reads them."""
    return max(lag[v] for v in step.inputs) + step.halo


def _step_rows(
    plan: RowPlan, buffers: dict[int, _Buffer | None], width: int, rows: int
) -> dict[int, int]:
    """How many rows of the input each value is computed for at a time.

    Those of a strip, but in the upscaling part as few as keep its largest value in the cache.
    """
    factors = _factors(plan)
    sizes = [width * s.channels * factors[s.out] ** 2 for s in plan.steps]
    small = min(rows, max(1, BLOCK_VALUES // max(sizes)))
    first = next((n for n, s in enumerate(plan.steps) if factors[s.out] > 1), len(sizes))
    for n, step in reversed(list(enumerate(plan.steps[:first]))):
        # A value without a buffer is read as it is computed, strip by strip.
        if buffers[step.out] is None and any(step.out in s.inputs for s in plan.steps[first:]):
            first = n
    return {0: rows} | {s.out: rows if n < first else small for n, s in enumerate(plan.steps)}


def stream_values(plan: RowPlan, width: int, rows: int) -> int:
    """About how many numbers a stream holds in memory.

    Args:
        plan: of the network.
        width: of the input.
        rows: of a strip.
    """
    buffers = _buffers(plan)
    at_a_time = _step_rows(plan, buffers, width, rows)
    total = 0
    for value, buffer in buffers.items():
        if buffer is not None:
            held = buffer.kept + max(2 * at_a_time[value] * buffer.factor, buffer.kept // 2)
            total += held * math.prod(buffer.row_shape(width * buffer.factor))
    # Temporary results of single steps.
    temporary = (at_a_time[s.out] * s.channels * s.upscale_factor**2 for s in plan.steps)
    return total + 8 * width * max(temporary)


class RowStream:
    """Runs a plan on one image. Each image needs a stream of its own.

    Args:
        plan: of the network.
        width: of the image.
        rows: about how many rows will be pushed at a time.
        dtype: of the arithmetic; the one that the plan was made for.
        device: of the rows and of the plan's weights.
    """

    def __init__(
        self,
        plan: RowPlan,
        width: int,
        rows: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.plan = plan
        self._width = width
        self._height = _UNKNOWN_HEIGHT  # until the last row is pushed
        buffers = _buffers(plan)
        self._step_rows = _step_rows(plan, buffers, width, rows)
        self._factors = _factors(plan)
        self._values: dict[int, _Value] = {}
        for value, size in buffers.items():
            window = None
            if size is not None:
                f, at_a_time = size.factor, self._step_rows[value] * size.factor
                shape = size.row_shape(width * f)
                window = RowWindow(*shape, at_a_time, dtype, size.padding, device)
            readers = [s for s in plan.steps if value in s.inputs]
            self._values[value] = _Value(window, readers)

    def push(self, rows_rwC: Tensor, last: bool) -> Iterator[Tensor]:
        """Takes the next rows of the image and yields the rows of the result they complete.

        Iterate to the end before the next push.

        Args:
            rows_rwC: ``(r, w, C)``, any number of rows.
            last: whether the image ends with them.

        Yields:
            Rows of the result in order, ``(r', w', D)``. Each tensor is overwritten when the next
            one is asked for.
        """
        image = self._values[0]
        assert image.window is not None
        image.window.add(len(rows_rwC)).copy_(rows_rwC)
        image.computed += len(rows_rwC)
        if last:
            self._height = image.computed
            image.window.close()
        more = True
        while more:
            # Upscaling parts take fewer rows at a time, and what remains at the end of the image
            # comes in strips of the usual height.
            more = False
            for step in self.plan.steps:
                out, more_of_it = self._advance(step)
                more = more or more_of_it
            for number, value in self._values.items():
                if value.window is not None and value.readers:
                    value.window.drop(min(self._needed(s, number) for s in value.readers))
            if len(out):
                yield out

    def _advance(self, step: Step) -> tuple[Tensor, bool]:
        """Computes the next rows of a step; also returns whether more are possible at once."""
        value, f = self._values[step.out], step.upscale_factor
        start, read = value.computed, min(self._values[v].computed for v in step.inputs)
        complete = read == self._height * self._factors[step.inputs[0]]
        possible = (read if complete else max(0, read - step.halo)) * f
        stop = min(possible, start + self._step_rows[step.out] * self._factors[step.out])
        value.rows_start = start
        if stop <= start:
            value.rows = torch.empty(0)
            return value.rows, False
        into = None if value.window is None else value.window.add(stop - start)
        height = read if complete else _UNKNOWN_HEIGHT
        width = self._width * self._factors[step.inputs[0]]
        value.rows = step.run(self._rows, start, stop, into, height, width)
        value.computed = stop
        if value.window is not None and stop == self._height * self._factors[step.out]:
            value.window.close()
        return value.rows, stop < possible

    def _rows(self, number: int, start: int, stop: int) -> Tensor:
        value = self._values[number]
        if value.window is not None:
            return value.window[start:stop]
        return value.rows[start - value.rows_start : stop - value.rows_start]

    def _needed(self, step: Step, number: int) -> int:
        """The first row of a value that a step will still read."""
        return self._values[step.out].computed // step.upscale_factor - step.halo

"""A row plan whose narrow convolutions run in kernels that numba compiles, where it is installed.

PyTorch's operators keep pixels channels last, where 13 or 52 outputs fill 16 or 64 lanes of
vectors. Here pixels are in the lanes. Results are the same to the last bit where oneDNN adds in
the same order, which it does with AVX-512.

Legend: r rows, w columns, C channels, X blocks of ``LANES`` pixels. A planar value's rows are
``(r, X + 2, C * LANES)``: a block of zeros on either side.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pcsr_lightning.streaming.steps import Conv1x1, Convolve, RowPlan, Rows, Step
from pcsr_lightning.streaming.stream import RowStream

_log = logging.getLogger(__name__)

MOST_THREADS = 8
"""With more, handing parts to threads takes as long as the parts."""


@cache
def planar_kernels() -> ModuleType | None:
    """The kernels, ``None`` where numba is missing or does not work."""
    if find_spec("numba") is None:
        return None
    try:
        from pcsr_lightning.streaming import planar_kernels as kernels
    except (ImportError, OSError) as error:  # numba refuses versions of NumPy that it does not know
        _log.warning("numba is not used: %s", error)
        return None
    try:
        kernels.keep_compiled()
    except RuntimeError:
        _log.warning(
            "no folder to keep numba's kernels in: every process compiles them anew, "
            "unless NUMBA_CACHE_DIR names one that can be written to"
        )
    return kernels


def _kernels() -> ModuleType:
    kernels = planar_kernels()
    assert kernels is not None
    return kernels


def with_planar_kernels(plan: RowPlan) -> RowPlan:
    """The same plan with planar steps where they are faster; ``plan`` itself if there are none.

    Args:
        plan: on a CPU, in float32.
    """
    if planar_kernels() is None:
        return plan
    channels = {0: plan.in_channels} | {s.out: s.channels for s in plan.steps}
    fit = {s.out for s in plan.steps if _fits(s, channels)}
    if not any(isinstance(s, Convolve) and s.out in fit for s in plan.steps):
        return plan  # 1x1 convolutions alone do not pay for the change of layout
    planar = replace(plan, steps=_convert(plan, fit, channels))
    try:
        failure = _failure(planar, plan)
        if failure is not None:  # what is kept may be damaged
            _kernels().compile_anew()
            failure = _failure(planar, plan)
    except OSError as error:  # it cannot be written
        failure = str(error)
    if failure is None:
        return planar
    _log.warning("numba is not used: %s", failure)
    return plan


def is_planar(plan: RowPlan) -> bool:
    """Whether it has planar steps."""
    return any(isinstance(step, _PlanarStep) for step in plan.steps)


def _failure(planar: RowPlan, plan: RowPlan) -> str | None:
    """What is wrong with planar steps on this processor."""
    try:
        # five blocks: tiles of two or three, and some that are alone
        found, expected = (_of_a_small_image(p, 4 * _kernels().LANES + 3) for p in (planar, plan))
    except Exception as reason:  # compiling, and reading what is kept, fail in many ways
        return f"{type(reason).__name__}: {' '.join(str(reason).split())[:300]}"
    error = float((found - expected).abs().max() / expected.abs().max())
    return None if error <= 1e-5 else f"its results differ by {error:.1e} on this processor"


def _of_a_small_image(plan: RowPlan, width: int) -> Tensor:
    C = plan.in_channels
    x_rwC = torch.linspace(0, 40, 4 * width * C, dtype=torch.float64).sin().view(4, width, C)
    stream = RowStream(plan, width, 4)
    return torch.cat([out.clone() for out in stream.push(x_rwC.float(), last=True)])


def _fits(step: Step, channels: dict[int, int]) -> bool:
    """Whether there is a kernel for this step."""
    if not isinstance(step, Convolve | Conv1x1):
        return False
    if step.activation is None or not step.activation.is_relu:
        return False
    if any(channels[v] != step.channels for v in step.inputs):
        return False
    if _kernels().best_tile(_outputs(step)) is None:
        return False
    if isinstance(step, Convolve):
        return step.weight.shape[2:] == (3, 3) and step.groups > 1
    parts = len(step.weights_CN)
    alone = parts == 1 and step.added is not None
    return alone or (2 <= parts <= 4 and step.added is None)


def _outputs(step: Convolve | Conv1x1) -> int:
    """Outputs that read the same inputs."""
    return step.channels // step.groups if isinstance(step, Convolve) else step.channels


def _convert(plan: RowPlan, fit: set[int], channels: dict[int, int]) -> list[Step]:
    """The steps, those of ``fit`` planar, with changes of layout between them and others."""
    steps: list[Step] = []
    other: dict[int, int] = {}  # values in the layout that they were not computed in
    fresh = max(channels)

    def numbers(step: Step) -> tuple[int, ...]:
        nonlocal fresh
        for value in step.inputs:
            if (value in fit) != (step.out in fit) and value not in other:
                fresh += 1
                other[value] = fresh
                kind = ToPlanar if step.out in fit else ToPixels
                steps.append(kind((value,), fresh, channels[value]))
        return tuple(v if (v in fit) == (step.out in fit) else other[v] for v in step.inputs)

    for step in plan.steps:
        inputs = numbers(step)
        if isinstance(step, Convolve) and step.out in fit:
            steps.append(_conv3(step, inputs))
        elif isinstance(step, Conv1x1) and step.out in fit:
            steps.append(_conv1(step, inputs))
        elif isinstance(step, Conv1x1) and step.added is not None:
            steps.append(replace(step, inputs=inputs, added=inputs[-1]))
        else:
            steps.append(replace(step, inputs=inputs))
    if plan.steps[-1].out in fit:
        last = plan.steps[-1]
        steps.append(ToPixels((last.out,), fresh + 1, last.channels))
    return steps


def _conv3(step: Convolve, inputs: tuple[int, ...]) -> Step:
    tile, C = _kernels().best_tile(_outputs(step)), step.weight.shape[1]
    weight = step.weight.reshape(-1, len(tile[0]), C, 3, 3).permute(0, 3, 4, 2, 1)
    flat = _flat(weight, step.bias, step.channels)
    return PlanarConvolve(inputs, step.out, step.channels, 1, 1, tile, *flat, step.groups)


def _conv1(step: Conv1x1, inputs: tuple[int, ...]) -> Step:
    tile, parts = _kernels().best_tile(_outputs(step)), len(step.weights_CN)
    weight = torch.stack(list(step.weights_CN))
    weight = weight.view(parts, len(weight[0]), -1, len(tile[0])).permute(2, 0, 1, 3)
    flat = _flat(weight, step.bias_N, step.channels)
    return PlanarMix(inputs, step.out, step.channels, 0, 1, tile, *flat, parts)


def _flat(weight: Tensor, bias: Tensor | None, channels: int) -> tuple[Tensor, Tensor]:
    return weight.flatten().contiguous(), torch.zeros(channels) if bias is None else bias


@dataclass
class _PlanarStep(Step):
    """A step that runs in a kernel.

    Attributes:
        tile: what the kernel computes in registers.
        weight: in the order in which the kernel reads it, flat.
        bias: zeros if there is none.
    """

    tile: Any = None
    weight: Tensor = field(default_factory=lambda: torch.empty(0))
    bias: Tensor = field(default_factory=lambda: torch.empty(0))

    def row_shape(self, width: int) -> tuple[int, int]:
        lanes = _kernels().LANES
        return -(-width // lanes) + 2, self.channels * lanes

    def _result(self, into: Tensor | None, rows: int, width: int) -> Tensor:
        return torch.empty(rows, *self.row_shape(width)) if into is None else into


@dataclass
class PlanarConvolve(_PlanarStep):
    """A 3x3 convolution in groups, then ReLU."""

    groups: int = 1

    @property
    def padding(self) -> int:
        return self.halo

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        out = self._result(into, stop - start, width)
        arrays = _array(rows(self.inputs[0], start - 1, stop + 1)), _array(out)
        given = self.groups, self.channels // self.groups, _array(self.weight), _array(self.bias)
        _run(_kernels().conv3, stop - start, arrays, width, *given, self.tile)
        return out


@dataclass
class PlanarMix(_PlanarStep):
    """ReLU of a sum of 1x1 convolutions, or of one and another value."""

    parts: int = 1

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        out = self._result(into, stop - start, width)
        given = [_array(rows(value, start, stop)) for value in self.inputs]
        x = given[: self.parts] + given[:1] * (4 - self.parts)
        arrays = (*x, self.parts, given[-1], _array(out))
        weight, bias = _array(self.weight), _array(self.bias)
        _run(_kernels().conv1, stop - start, arrays, width, weight, bias, self.tile)
        return out


@dataclass
class ToPlanar(_PlanarStep):
    """The planar layout of a value."""

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        out = self._result(into, stop - start, width)
        arrays = _array(rows(self.inputs[0], start, stop)), _array(out)
        _run(_kernels().to_planar, stop - start, arrays, width, self.channels)
        return out


@dataclass
class ToPixels(Step):
    """A planar value channels last."""

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        out = torch.empty(stop - start, width, self.channels) if into is None else into
        arrays = _array(rows(self.inputs[0], start, stop)), _array(out)
        _run(_kernels().to_pixels, stop - start, arrays, width, self.channels)
        return out


def _array(x: Tensor) -> Any:
    """Its numbers as numba takes them: a view."""
    return x.contiguous().view(-1).numpy()


def _run(kernel: Callable[..., None], rows: int, arrays: tuple[Any, ...], *others: Any) -> None:
    """Runs a kernel on ranges of rows, as many as PyTorch has threads; it lets go of the GIL."""
    threads = min(torch.get_num_threads(), rows)
    if threads < 2:
        kernel(*arrays, 0, rows, *others)
        return
    (_, own), *parts = pairwise(rows * n // threads for n in range(threads + 1))
    submit = _threads(threads - 1).submit
    elsewhere = [submit(kernel, *arrays, first, last, *others) for first, last in parts]
    kernel(*arrays, 0, own, *others)
    for part in elsewhere:
        part.result()


@cache
def _threads(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, thread_name_prefix="planar")


if hasattr(os, "register_at_fork"):  # a forked process has none of these threads
    os.register_at_fork(after_in_child=_threads.cache_clear)

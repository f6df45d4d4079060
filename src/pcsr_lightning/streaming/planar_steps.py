"""Steps of a row plan that run in kernels that numba compiles, and how their values lie in memory.

Legend: r rows, w columns, C channels, X blocks of ``LANES`` pixels. A planar value's rows are
``(r, X + 2, slots * LANES)``, a block of zeros on either side, see :class:`Layout`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.streaming.steps import Rows, Step

_log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Layout:
    """How planar values lie in memory.

    Attributes:
        dtype: of the values.
        unit: channels that begin a slot of their own.
    """

    dtype: torch.dtype
    unit: int

    @property
    def pair(self) -> int:
        """Channels in a slot, which has 32 bits."""
        return 4 // self.dtype.itemsize

    @property
    def tile(self) -> Any:
        """What a kernel computes in registers."""
        return _kernels().best_tile(self.unit, self.pair)

    def slots(self, channels: int) -> int:
        """Of so many channels."""
        return channels // self.unit * -(-self.unit // self.pair)

    def row_shape(self, width: int, channels: int) -> tuple[int, int]:
        """Of a value's rows."""
        lanes = _kernels().LANES
        return -(-width // lanes) + 2, self.slots(channels) * lanes * self.pair

    def paired(self, weight_xC: Tensor) -> Tensor:
        """The last dimension as ``(slots, pair)``."""
        parts = weight_xC.reshape(*weight_xC.shape[:-1], -1, self.unit)
        filled = F.pad(parts, (0, -self.unit % self.pair))
        return filled.reshape(*weight_xC.shape[:-1], -1, self.pair)


@dataclass
class PlanarStep(Step):
    """A step that runs in a kernel.

    Attributes:
        layout: of planar values.
        weight: in the order in which the kernel reads it, flat.
        bias: float32; zeros if there is none.
    """

    layout: Layout = Layout(torch.float32, 1)
    weight: Tensor = field(default_factory=lambda: torch.empty(0))
    bias: Tensor = field(default_factory=lambda: torch.empty(0))

    def row_shape(self, width: int) -> tuple[int, int]:
        return self.layout.row_shape(width, self.channels)

    def _result(self, into: Tensor | None, rows: int, width: int) -> Tensor:
        if into is not None:
            return into
        return torch.empty(rows, *self.row_shape(width), dtype=self.layout.dtype)

    @property
    def _weights(self) -> tuple[Any, Any, Any]:
        return _words(self.weight), _words(self.bias), self.layout.tile


@dataclass
class PlanarConvolve(PlanarStep):
    """A 3x3 convolution in groups, then ReLU."""

    groups: int = 1

    @property
    def padding(self) -> int:
        return self.halo

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        out = self._result(into, stop - start, width)
        arrays = _words(rows(self.inputs[0], start - 1, stop + 1)), _words(out)
        slots = self.layout.slots(self.channels // self.groups)
        _run(_kernels().conv3, stop - start, arrays, width, self.groups, slots, *self._weights)
        return out


@dataclass
class PlanarMix(PlanarStep):
    """ReLU of a sum of 1x1 convolutions, or of one and another value."""

    parts: int = 1

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        out = self._result(into, stop - start, width)
        given = [_words(rows(value, start, stop)) for value in self.inputs]
        x = given[: self.parts] + given[:1] * (4 - self.parts)
        others = width, self.layout.slots(self.channels), *self._weights
        if self.layout.pair == 1 < self.parts:
            arrays = *x, self.parts, _words(out)
            _run(_kernels().conv1_in_turn, stop - start, arrays, *others)
        else:
            arrays = *x, self.parts, given[-1], _words(out)
            _run(_kernels().conv1, stop - start, arrays, *others)
        return out


@dataclass
class _ChangeOfLayout(PlanarStep):
    """A value in the other layout."""

    kernel: ClassVar[str]

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        out = self._result(into, stop - start, width)
        arrays = _numbers(rows(self.inputs[0], start, stop)), _numbers(out)
        kernel, layout = getattr(_kernels(), self.kernel), self.layout
        _run(kernel, stop - start, arrays, width, self.channels, layout.unit, layout.pair)
        return out


@dataclass
class ToPlanar(_ChangeOfLayout):
    """The planar layout of a value."""

    kernel: ClassVar[str] = "to_planar"


@dataclass
class ToPixels(_ChangeOfLayout):
    """A planar value channels last."""

    kernel: ClassVar[str] = "to_pixels"

    def row_shape(self, width: int) -> tuple[int, int]:
        return width, self.channels


def _words(x: Tensor) -> Any:
    """Its bits as numba takes them: float32, or pairs of bfloat16."""
    x = x.contiguous().view(-1)
    return (x if x.dtype == torch.float32 else x.view(torch.int32)).numpy()


def _numbers(x: Tensor) -> Any:
    """Its numbers, one by one."""
    x = x.contiguous().view(-1)
    return (x if x.dtype == torch.float32 else x.view(torch.int16)).numpy()


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

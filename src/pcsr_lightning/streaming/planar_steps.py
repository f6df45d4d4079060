"""Steps of a row plan that run in kernels that numba compiles, and how their values lie in memory.

Legend: r rows, w columns, C channels, X blocks of ``LANES`` pixels. A planar value's rows are
``(r, X + 2, slots * LANES)``, a block of zeros on either side, see :class:`Layout`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.streaming.numba_runtime import (
    loaded_kernels,
    numbers,
    run_in_threads,
    words,
)
from pcsr_lightning.streaming.steps import Rows, Step


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
        return loaded_kernels().best_tile(self.unit, self.pair)

    def slots(self, channels: int) -> int:
        """Of so many channels."""
        return channels // self.unit * -(-self.unit // self.pair)

    def row_shape(self, width: int, channels: int) -> tuple[int, int]:
        """Of a value's rows."""
        lanes = loaded_kernels().LANES
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
        return words(self.weight), words(self.bias), self.layout.tile


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
        arrays = words(rows(self.inputs[0], start - 1, stop + 1)), words(out)
        slots = self.layout.slots(self.channels // self.groups)
        run_in_threads(
            loaded_kernels().conv3, stop - start, arrays, width, self.groups, slots, *self._weights
        )
        return out


@dataclass
class PlanarMix(PlanarStep):
    """ReLU of a sum of 1x1 convolutions, or of one and another value."""

    parts: int = 1

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        out = self._result(into, stop - start, width)
        given = [words(rows(value, start, stop)) for value in self.inputs]
        x = given[: self.parts] + given[:1] * (4 - self.parts)
        others = width, self.layout.slots(self.channels), *self._weights
        if self.layout.pair == 1 < self.parts:
            arrays = *x, self.parts, words(out)
            run_in_threads(loaded_kernels().conv1_in_turn, stop - start, arrays, *others)
        else:
            arrays = *x, self.parts, given[-1], words(out)
            run_in_threads(loaded_kernels().conv1, stop - start, arrays, *others)
        return out


@dataclass
class _ChangeOfLayout(PlanarStep):
    """A value in the other layout."""

    kernel: ClassVar[str]

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        out = self._result(into, stop - start, width)
        arrays = numbers(rows(self.inputs[0], start, stop)), numbers(out)
        kernel, layout = getattr(loaded_kernels(), self.kernel), self.layout
        run_in_threads(kernel, stop - start, arrays, width, self.channels, layout.unit, layout.pair)
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

"""The operations of a row stream: convolutions, channel mixing, pointwise functions, shuffles.

Legend: r rows, w columns, C channels in, N channels out; rows are ``(r, w, C)``, channels last.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Rows = Callable[[int, int, int], Tensor]
"""``(value, start, stop)`` gives the rows of a value."""


def as_image(rows_rwC: Tensor) -> Tensor:
    """``(1, C, r, w)`` in channels-last memory: a view."""
    return rows_rwC.permute(2, 0, 1)[None]


def as_rows(image_1Crw: Tensor) -> Tensor:
    """``(r, w, C)``, a view where the image is channels last."""
    return image_1Crw[0].permute(1, 2, 0)


@dataclass
class Step(ABC):
    """One operation: rows ``[start, stop)`` of ``out`` from rows of ``inputs``.

    Attributes:
        inputs: numbers of the values it reads.
        out: number of the value it computes.
        channels: of that value.
        halo: input rows above and below that a row depends on.
        upscale_factor: output rows (and columns) per input row.
    """

    inputs: tuple[int, ...]
    out: int
    channels: int
    halo: int = 0
    upscale_factor: int = 1

    @property
    def padding(self) -> int:
        """Rows of zeros that the step reads above the first row and below the last."""
        return 0

    def row_shape(self, width: int) -> tuple[int, int]:
        """How a row of the result lies in memory.

        Args:
            width: of the result.
        """
        return width, self.channels

    @abstractmethod
    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        """Computes output rows ``[start, stop)``.

        Args:
            rows: reads rows of a value.
            start: first output row.
            stop: last output row + 1.
            into: the tensor to write them to; a new one if ``None``.
            height: of the input, or a larger number while it is not known yet.
            width: of the input.
        """


@dataclass
class Activation:
    """An activation function, fused into the step whose result it takes."""

    module: Callable[[Tensor], Tensor]
    is_relu: bool = False

    def apply(self, fresh_rwN: Tensor, into: Tensor | None) -> Tensor:
        """The activation of a tensor that no other step reads; written to ``into`` if given."""
        if self.is_relu:
            return torch.clamp_min(fresh_rwN, 0, out=fresh_rwN if into is None else into)
        out = as_rows(self.module(as_image(fresh_rwN)))
        return out if into is None else into.copy_(out)


def _finish(fresh_rwN: Tensor, activation: Activation | None, into: Tensor | None) -> Tensor:
    if activation is not None:
        return activation.apply(fresh_rwN, into)
    return fresh_rwN if into is None else into.copy_(fresh_rwN)


@dataclass
class Convolve(Step):
    """A convolution that keeps the size, then an activation."""

    weight: Tensor = field(default_factory=lambda: torch.empty(0))
    bias: Tensor | None = None
    groups: int = 1
    activation: Activation | None = None

    @property
    def padding(self) -> int:
        return self.halo

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        x = as_image(rows(self.inputs[0], start - self.halo, stop + self.halo))
        columns = self.weight.shape[3] // 2
        y = F.conv2d(x, self.weight, self.bias, padding=(0, columns), groups=self.groups)
        return _finish(as_rows(y), self.activation, into)


@dataclass
class Conv1x1(Step):
    """The sum of 1x1 convolutions of several values (and of ``added``), then an activation.

    A 1x1 convolution of a concatenation is the sum of 1x1 convolutions of its parts, so the
    concatenated tensor is never allocated.
    """

    weights_CN: Sequence[Tensor] = ()
    bias_N: Tensor | None = None
    added: int | None = None
    activation: Activation | None = None

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        parts = [rows(value, start, stop) for value in self.inputs[: len(self.weights_CN)]]
        shape = (*parts[0].shape[:2], self.channels)
        out_rwN = parts[0].new_empty(shape) if into is None else into
        out = out_rwN.view(-1, self.channels)
        first, *others = [part.reshape(-1, part.shape[2]) for part in parts]
        if self.bias_N is None:
            torch.mm(first, self.weights_CN[0], out=out)
        else:
            torch.addmm(self.bias_N, first, self.weights_CN[0], out=out)
        for part, weight_CN in zip(others, self.weights_CN[1:], strict=True):
            out.addmm_(part, weight_CN)
        if self.added is not None:
            out_rwN += rows(self.added, start, stop)
        if self.activation is None:
            return out_rwN
        return self.activation.apply(out_rwN, out_rwN)


@dataclass
class Pointwise(Step):
    """A function of each pixel alone: sums, activations, concatenations."""

    function: Callable[..., Tensor] = torch.add

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        # Clones: an in-place function must not change what other steps still read.
        x = [as_image(rows(value, start, stop).clone()) for value in self.inputs]
        return _finish(as_rows(self.function(*x)), None, into)


@dataclass
class PixelShuffle(Step):
    """Pixel shuffle: ``upscale_factor ** 2`` channels become a square of pixels."""

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        s = self.upscale_factor
        x = rows(self.inputs[0], start // s, stop // s)
        r, w, _ = x.shape
        y = x.view(r, w, self.channels, s, s).permute(0, 3, 1, 4, 2)
        if into is None:
            return y.reshape(r * s, w * s, self.channels)
        into.view(r, s, w, s, self.channels).copy_(y)
        return into


@dataclass
class Windowed(Step):
    """A module applied to the rows with their halo; the halo's output is cut off."""

    module: nn.Module | None = None
    activation: Activation | None = None

    def run(
        self, rows: Rows, start: int, stop: int, into: Tensor | None, height: int, width: int
    ) -> Tensor:
        assert self.module is not None
        s = self.upscale_factor
        first, last = start // s, stop // s
        above, below = min(self.halo, first), min(self.halo, height - last)
        x = as_image(rows(self.inputs[0], first - above, last + below))
        y = as_rows(self.module(x))
        return _finish(y[above * s : above * s + stop - start], self.activation, into)


@dataclass
class RowPlan:
    """How to compute a network row by row; made by :func:`~pcsr_lightning.streaming.plan_rows`.

    Attributes:
        steps: in execution order; each computes one value. Value 0 is the network's input.
        in_channels: of the input.
        out_channels: of the result.
        upscale_factor: rows (and columns) of the result per row of the input.
        halo: how many input rows above (or below) a row of the result can change it.
    """

    steps: list[Step]
    in_channels: int
    out_channels: int
    upscale_factor: int
    halo: int

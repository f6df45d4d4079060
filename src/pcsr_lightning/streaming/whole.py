"""Runs a row plan on whole pictures at once, the way that suits a GPU.

Channels are padded to what tensor cores multiply, grouped convolutions run as dense ones with zeros
between the groups, and everything is channels last. All that is added is zero, or is multiplied by
zero: results are the plan's own up to rounding.

Legend: B batch, h w size, C channels in, N channels out.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.streaming.steps import (
    Activation,
    Conv1x1,
    Convolve,
    PixelShuffle,
    Pointwise,
    RowPlan,
    Step,
    Windowed,
)

TILE = 16
"""Padded channels are multiples of this, those of the input of half of it."""

Operation = Callable[[list[Tensor]], Tensor]
"""From a step's inputs ``(B, h, w, C)`` to its result; both may have padded channels."""


class WholePlan:
    """A network on whole pictures.

    Args:
        plan: of the network; its weights are on the device of the pictures to come.
    """

    def __init__(self, plan: RowPlan) -> None:
        self.plan = plan
        self._channels = {0: plan.in_channels} | {s.out: s.channels for s in plan.steps}
        self._width = {0: _padded(plan.in_channels, TILE // 2)}
        self._operations = [self._operation(step) for step in plan.steps]
        # After which step a value is not needed any more.
        self._last = {v: n for n, step in enumerate(plan.steps) for v in step.inputs}

    def __call__(self, x_BhwC: Tensor) -> Tensor:
        """The network's result, ``(B, h', w', N)``.

        Args:
            x_BhwC: its input, in the plan's precision.
        """
        pad = self._width[0] - self.plan.in_channels
        values = {0: F.pad(x_BhwC, (0, pad))}
        for n, (step, operation) in enumerate(zip(self.plan.steps, self._operations, strict=True)):
            out = operation([values[v] for v in step.inputs])
            for v in set(step.inputs):
                if self._last[v] == n:
                    del values[v]
            values[step.out] = out
        return out[..., : self.plan.out_channels]

    def _operation(self, step: Step) -> Operation:
        """What computes a step; it also decides how wide its result is."""
        width = _padded(step.channels, TILE)
        if isinstance(step, Convolve):
            self._width[step.out] = width
            return self._convolve(step)
        if isinstance(step, Conv1x1):
            self._width[step.out] = width
            return self._mix(step)
        self._width[step.out] = step.channels
        narrow = [self._channels[v] for v in step.inputs]

        def run(inputs: list[Tensor]) -> Tensor:
            images = [as_images(x[..., :C]) for x, C in zip(inputs, narrow, strict=True)]
            return as_pixels(_plain(step, images))

        return run

    def _convolve(self, step: Convolve) -> Operation:
        weight, N = step.weight, step.channels
        if step.groups > 1:  # a block for each group on the diagonal
            blocks = weight.reshape(step.groups, -1, *weight.shape[1:]).movedim(0, -1)
            weight = torch.diag_embed(blocks, dim1=0, dim2=2).flatten(0, 1).flatten(1, 2)
        width, C = self._width[step.out], self._width[step.inputs[0]]
        weight = F.pad(weight, (0, 0, 0, 0, 0, C - weight.shape[1], 0, width - N))
        weight = weight.contiguous(memory_format=torch.channels_last)
        bias = None if step.bias is None else F.pad(step.bias, (0, width - N))
        padding = (step.halo, weight.shape[3] // 2)
        activate = _activation(step.activation, N, width)

        def run(inputs: list[Tensor]) -> Tensor:
            y = F.conv2d(as_images(inputs[0]), weight, bias, padding=padding)
            return activate(as_pixels(y))

        return run

    def _mix(self, step: Conv1x1) -> Operation:
        width, N = self._width[step.out], step.channels
        weights = [
            F.pad(weight_CN, (0, width - N, 0, self._width[v] - len(weight_CN)))
            for v, weight_CN in zip(step.inputs, step.weights_CN, strict=False)
        ]
        bias = None if step.bias_N is None else F.pad(step.bias_N, (0, width - N))
        activate = _activation(step.activation, N, width)

        def run(inputs: list[Tensor]) -> Tensor:
            first, *others = [x.flatten(0, 2) for x in inputs[: len(weights)]]
            out = first @ weights[0] if bias is None else torch.addmm(bias, first, weights[0])
            for x, weight in zip(others, weights[1:], strict=True):
                out.addmm_(x, weight)
            out_BhwN = out.view(*inputs[0].shape[:3], width)
            if step.added is not None:
                out_BhwN[..., :N] += inputs[-1][..., :N]
            return activate(out_BhwN)

        return run


def _plain(step: Step, images: list[Tensor]) -> Tensor:
    """Steps whose channels cannot be padded: from images ``(B, C, h, w)`` to one."""
    if isinstance(step, Pointwise):
        # Clones: an in-place function must not change what other steps still read.
        return step.function(*(x.clone() for x in images))
    if isinstance(step, PixelShuffle):
        return F.pixel_shuffle(images[0], step.upscale_factor)
    assert isinstance(step, Windowed)
    assert step.module is not None
    y: Tensor = step.module(images[0])
    return y if step.activation is None else step.activation.module(y)


def _activation(
    activation: Activation | None, channels: int, width: int
) -> Callable[[Tensor], Tensor]:
    """Of a fresh result ``(B, h, w, N)``, padded channels left out where it has parameters for
    each channel."""
    if activation is None:
        return lambda x: x
    if activation.is_relu:
        return lambda x: x.clamp_min_(0)
    module = activation.module
    tensors = chain(module.parameters(), module.buffers()) if isinstance(module, nn.Module) else ()
    if width == channels or all(t.numel() <= 1 for t in tensors):
        return lambda x: as_pixels(module(as_images(x)))

    def narrow(x: Tensor) -> Tensor:
        x[..., :channels] = as_pixels(module(as_images(x[..., :channels])))
        return x

    return narrow


def _padded(channels: int, multiple: int) -> int:
    return -(-channels // multiple) * multiple


def as_images(x_BhwC: Tensor) -> Tensor:
    """``(B, C, h, w)`` in channels-last memory: a view."""
    return x_BhwC.permute(0, 3, 1, 2)


def as_pixels(x_BChw: Tensor) -> Tensor:
    """``(B, h, w, C)``, contiguous; a view where the image is channels last."""
    return x_BChw.permute(0, 2, 3, 1).contiguous()

"""A row plan whose narrow convolutions run in kernels that numba compiles, where it is installed.

PyTorch's operators keep pixels channels last, where 13 or 52 outputs fill 16 or 64 lanes of
vectors. Here pixels are in the lanes. Results in float32 are the same to the last bit where oneDNN
adds in the same order.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from pcsr_lightning.streaming.numba_runtime import kernels_work, multiplies, planar_kernels
from pcsr_lightning.streaming.planar_steps import (
    Layout,
    PlanarConvolve,
    PlanarMix,
    PlanarStep,
    ToPixels,
    ToPlanar,
)
from pcsr_lightning.streaming.steps import Conv1x1, Convolve, RowPlan, Step
from pcsr_lightning.streaming.stream import RowStream


def with_planar_kernels(plan: RowPlan) -> RowPlan:
    """The same plan with planar steps where they are faster; ``plan`` itself if there are none.

    Args:
        plan: on a CPU.
    """
    channels = {0: plan.in_channels} | {s.out: s.channels for s in plan.steps}
    narrow = [s for s in plan.steps if isinstance(s, Convolve) and _is_narrow(s, channels)]
    if not narrow or planar_kernels() is None:
        return plan  # 1x1 convolutions alone do not pay for the change of layout
    dtype = narrow[0].weight.dtype
    if not multiplies(dtype):
        return plan
    layout = Layout(dtype, math.gcd(*(s.channels // s.groups for s in narrow)))
    if layout.tile is None:
        return plan
    fit = {s.out for s in narrow}
    fit |= {s.out for s in plan.steps if isinstance(s, Conv1x1) and _fits(s, channels, layout)}
    planar = replace(plan, steps=_convert(plan, fit, channels, layout))

    def compare() -> tuple[Tensor, Tensor]:
        width = 4 * 16 + 3  # five blocks or nine: tiles of several, and some that are alone
        return _of_a_small_image(planar, width, dtype), _of_a_small_image(plan, width, dtype)

    return planar if kernels_work(compare) else plan


def is_planar(plan: RowPlan) -> bool:
    """Whether it has planar steps."""
    return any(isinstance(step, PlanarStep) for step in plan.steps)


def _of_a_small_image(plan: RowPlan, width: int, dtype: torch.dtype) -> Tensor:
    C = plan.in_channels
    x_rwC = torch.linspace(0, 40, 4 * width * C, dtype=torch.float64).sin().view(4, width, C)
    stream = RowStream(plan, width, 4, dtype)
    return torch.cat([out.clone() for out in stream.push(x_rwC.to(dtype), last=True)])


def _has_relu(step: Convolve | Conv1x1, channels: dict[int, int]) -> bool:
    """Whether a ReLU follows, and it has as many inputs as outputs."""
    if step.activation is None or not step.activation.is_relu:
        return False
    return all(channels[v] == step.channels for v in step.inputs)


def _is_narrow(step: Convolve, channels: dict[int, int]) -> bool:
    return _has_relu(step, channels) and step.weight.shape[2:] == (3, 3) and step.groups > 1


def _fits(step: Conv1x1, channels: dict[int, int], layout: Layout) -> bool:
    """Whether there is a kernel for this step."""
    parts = len(step.weights_CN)
    alone = parts == 1 and step.added is not None
    known = alone or (2 <= parts <= 4 and step.added is None)
    return known and _has_relu(step, channels) and step.channels % layout.unit == 0


def _convert(plan: RowPlan, fit: set[int], channels: dict[int, int], layout: Layout) -> list[Step]:
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
                steps.append(kind((value,), fresh, channels[value], layout=layout))
        return tuple(v if (v in fit) == (step.out in fit) else other[v] for v in step.inputs)

    for step in plan.steps:
        inputs = numbers(step)
        if isinstance(step, Convolve) and step.out in fit:
            steps.append(_conv3(step, inputs, layout))
        elif isinstance(step, Conv1x1) and step.out in fit:
            steps.append(_conv1(step, inputs, layout))
        elif isinstance(step, Conv1x1) and step.added is not None:
            steps.append(replace(step, inputs=inputs, added=inputs[-1]))
        else:
            steps.append(replace(step, inputs=inputs))
    if plan.steps[-1].out in fit:
        last = plan.steps[-1]
        steps.append(ToPixels((last.out,), fresh + 1, last.channels, layout=layout))
    return steps


def _conv3(step: Convolve, inputs: tuple[int, ...], layout: Layout) -> Step:
    weight = layout.paired(step.weight.permute(0, 2, 3, 1))
    weight = weight.reshape(-1, len(layout.tile[0]), *weight.shape[1:])
    flat = _flat(weight.permute(0, 2, 3, 4, 1, 5), step.bias, step.channels)
    return PlanarConvolve(inputs, step.out, step.channels, 1, 1, layout, *flat, step.groups)


def _conv1(step: Conv1x1, inputs: tuple[int, ...], layout: Layout) -> Step:
    weight = torch.stack([weight_CN.T for weight_CN in step.weights_CN])
    weight = layout.paired(weight)
    weight = weight.reshape(len(weight), -1, len(layout.tile[0]), *weight.shape[2:])
    flat = _flat(weight.permute(1, 0, 3, 2, 4), step.bias_N, step.channels)
    return PlanarMix(inputs, step.out, step.channels, 0, 1, layout, *flat, len(step.weights_CN))


def _flat(weight: Tensor, bias: Tensor | None, channels: int) -> tuple[Tensor, Tensor]:
    return weight.flatten().contiguous(), torch.zeros(channels) if bias is None else bias.float()

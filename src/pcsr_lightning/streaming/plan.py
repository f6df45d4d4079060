"""Plans how to compute a convolutional network row by row, by tracing it once with torch.fx.

A network of convolutions, sums, concatenations, activations and pixel shuffles needs no changes to
be streamed. Whatever does not depend on the input is computed once, here: so a network that derives
a convolution's weights from a batch norm's statistics in evaluation mode gets the two fused.
"""

from __future__ import annotations

import copy
import operator
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pcsr_lightning.streaming.graph import NotStreamable, RowGraph
from pcsr_lightning.streaming.steps import (
    Activation,
    Conv1x1,
    Convolve,
    PixelShuffle,
    Pointwise,
    RowPlan,
    Windowed,
)
from pcsr_lightning.streaming.stream import RowStream

_RELUS = (F.relu, F.relu_, torch.relu, torch.relu_)
_ACTIVATIONS = (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.ELU, nn.Hardswish,
    nn.Identity, nn.Dropout, nn.BatchNorm2d,
)  # fmt: skip
_POINTWISE = (F.leaky_relu, F.gelu, F.silu, torch.sigmoid, torch.tanh)
_SUMS = (operator.add, operator.iadd, torch.add)
_PRODUCTS = (operator.mul, torch.mul, operator.sub, torch.sub)


def plan_rows(
    module: nn.Module, dtype: torch.dtype = torch.float32, in_channels: int = 3
) -> RowPlan:
    """Traces a network and plans its computation row by row.

    Args:
        module: takes ``(1, in_channels, h, w)``, in evaluation mode. Its weights are copied into
            ``dtype``; later changes to them have no effect on the plan.
        dtype: of the arithmetic.
        in_channels: channels of its input.

    Returns:
        What :class:`~pcsr_lightning.streaming.RowStream` runs.

    Raises:
        NotStreamable: the network uses an operation that needs more than a few rows at a time, or
            one that is not supported. The message names it.
        ValueError: a part of it is in training mode.
    """
    if any(part.training for part in module.modules()):
        raise ValueError("a network is streamed in evaluation mode: call its eval() first")
    with torch.no_grad():
        try:
            with _TRACING:
                traced = fx.GraphModule(module, _ThreadTracer().trace(module))
        except Exception as error:  # arbitrary code of the module ran
            raise NotStreamable(f"it cannot be traced ({type(error).__name__}: {error})") from error
        plan = _Planner(traced, dtype, in_channels).plan()
        _verify(plan, module, dtype)
        return plan


_TRACING = threading.Lock()
"""Of two traces at once, the second would undo what the first has patched, and leave its own."""


class _ThreadTracer(fx.Tracer):
    """Traces what its own thread runs.

    While torch.fx traces, it patches how modules are called in the whole process: another thread's
    networks, which have nothing to do with the trace, would end up in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def _verify(plan: RowPlan, module: nn.Module, dtype: torch.dtype) -> None:
    """Compares the plan with the network on a small input.

    A trace leaves out hooks, and does not show that a value is changed in place under a second
    name.

    Raises:
        NotStreamable: the results differ.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return  # the network's operations would become part of the caller's trace
    weight = next(module.parameters(), torch.empty(0))
    C = plan.in_channels
    x_hwC = torch.linspace(0, 40, 7 * 6 * C, dtype=torch.float64).sin().view(7, 6, C)
    x_hwC = x_hwC.to(weight.device)
    expected_HWD = module(x_hwC.to(weight.dtype).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    stream = RowStream(plan, 6, 4, dtype, weight.device)
    pieces = [(x_hwC[:4], False), (x_hwC[4:], True)]
    rows = [out.clone() for x, last in pieces for out in stream.push(x.to(dtype), last)]
    tolerance = 1e-3 if dtype == weight.dtype == expected_HWD.dtype == torch.float32 else 0.1
    error = (torch.cat(rows).float() - expected_HWD.float()).abs().max()
    if not bool(error <= tolerance * expected_HWD.abs().max()):
        raise NotStreamable("its rows differ from the whole: is a value changed in place?")


class _Planner(RowGraph):
    """Chooses a step for every node of a trace."""

    def plan(self) -> RowPlan:
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                if self.values:
                    raise NotStreamable("it takes more than one input")
                self.values[node] = self.new_value(1)
            elif node.op == "output":
                out = self.value(self.variable(node.args[0]))
                steps = self.steps_for(out)
                if not steps:
                    raise NotStreamable("it returns its input")
                channels = self.in_channels, steps[-1].channels
                return RowPlan(steps, *channels, self.factors[out], self.halo(out))
            elif not any(self.depends(n) for n in node.all_input_nodes):
                self.constants[node] = self.evaluate(node)
            else:
                self._add(node)
        raise NotStreamable("it returns nothing")

    def _add(self, node: fx.Node) -> None:
        if not node.args:
            raise NotStreamable(f"{node.target} gets its input by keyword")
        if node.op == "call_module":
            self._add_module(node, self.modules[str(node.target)])
        elif node.op == "call_function":
            self._add_function(node, node.target)
        elif node.op == "call_method" and node.target in ("relu", "relu_"):
            self._activate(node, self.variable(node.args[0]), Activation(F.relu, is_relu=True))
        elif node.op == "call_method" and node.target == "contiguous":
            self.alias(node, self.variable(node.args[0]))
        else:
            raise NotStreamable(f"it calls {node.target}")

    def _add_module(self, node: fx.Node, module: nn.Module) -> None:
        x = self.variable(node.args[0])
        if isinstance(module, nn.Conv2d):
            if module.padding_mode != "zeros":
                raise NotStreamable(f"a convolution pads with {module.padding_mode}")
            self._convolve(
                node, x, module.weight, module.bias,
                module.stride, module.padding, module.dilation, module.groups,
            )  # fmt: skip
        elif isinstance(module, nn.ConvTranspose2d):
            self._transpose(node, x, module)
        elif isinstance(module, nn.PixelShuffle):
            s, value = module.upscale_factor, self.value(x)
            channels = self.channels_of(x) // s**2
            self.emit(node, PixelShuffle((value,), -1, channels, upscale_factor=s))
        elif isinstance(module, nn.Identity | nn.Dropout):
            self.alias(node, x)
        elif isinstance(module, _ACTIVATIONS):
            if isinstance(module, nn.BatchNorm2d) and not module.track_running_stats:
                raise NotStreamable("a batch norm uses the statistics of its input")
            kept = _copy(module, self.dtype)
            self._activate(node, x, Activation(kept, is_relu=isinstance(module, nn.ReLU)))
        else:
            raise NotStreamable(f"it has a {type(module).__name__}")

    def _add_function(self, node: fx.Node, function: Any) -> None:
        if function in (torch.cat, torch.concat):
            parts, axis = node.args[0], node.args[1] if len(node.args) > 1 else 0
            axis = node.kwargs.get("dim", axis)
            if axis != 1 or not isinstance(parts, list | tuple):
                raise NotStreamable("it concatenates along another axis than the channels")
            flat = [p for n in parts for p in self.parts.get(self.variable(n), [self.variable(n)])]
            self.parts[node] = flat
            self.channels[node] = sum(self.channels_of(p) for p in flat)
        elif function in (F.conv2d, torch.conv2d):
            self._functional_convolve(node)
        elif function in _RELUS:
            self._activate(node, self.variable(node.args[0]), Activation(F.relu, is_relu=True))
        elif function in _SUMS and not node.kwargs:
            self._sum(node)
        elif function in (*_POINTWISE, *_PRODUCTS):
            self._pointwise(node, function)
        else:
            raise NotStreamable(f"it calls {getattr(function, '__name__', function)}")

    def _functional_convolve(self, node: fx.Node) -> None:
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        x = self.variable(given["input"])
        weight, bias = self.constant(given["weight"]), self.constant(given.get("bias"))
        if not isinstance(weight, Tensor):
            raise NotStreamable("a convolution's weight depends on the input")
        stride, padding = given.get("stride", 1), given.get("padding", 0)
        dilation, groups = given.get("dilation", 1), int(str(given.get("groups", 1)))
        self._convolve(node, x, weight, bias, stride, padding, dilation, groups)

    def _convolve(
        self,
        node: fx.Node,
        x: fx.Node,
        weight: Tensor,
        bias: Tensor | None,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
    ) -> None:
        kernel = tuple(weight.shape[2:])
        same = tuple(k // 2 for k in kernel)
        keeps_size = all(k % 2 for k in kernel) and (padding == "same" or _pair(padding) == same)
        if _pair(stride) != (1, 1) or _pair(dilation) != (1, 1) or not keeps_size:
            raise NotStreamable("a convolution changes the size or is dilated")
        weight = weight.detach().to(self.dtype)
        bias = None if bias is None else bias.detach().to(self.dtype)
        channels = len(weight)
        self.channels[node] = channels
        if kernel == (1, 1) and groups == 1:
            parts = self.parts.get(x, [x])
            widths = [self.channels_of(p) for p in parts]
            weights = [w.t().contiguous() for w in torch.split(weight[:, :, 0, 0], widths, 1)]
            inputs = tuple(self.value(p) for p in parts)
            self.pending[node] = Conv1x1(inputs, -1, channels, weights_CN=weights, bias_N=bias)
            return
        step = Convolve((self.value(x),), -1, channels, halo=same[0], bias=bias, groups=groups)
        step.weight = weight.contiguous(memory_format=torch.channels_last)
        self.pending[node] = step

    def _transpose(self, node: fx.Node, x: fx.Node, module: nn.ConvTranspose2d) -> None:
        s, k = module.stride[0], module.kernel_size[0]
        sides = zip(module.kernel_size, _pair(module.padding), module.output_padding, strict=True)
        exact = all(kernel - 2 * pad + more == s for kernel, pad, more in sides)
        if module.stride != (s, s) or module.dilation != (1, 1) or not exact:
            raise NotStreamable("a transposed convolution does not multiply the size exactly")
        halo = -(-k // s)
        self.channels[node] = module.out_channels
        self.pending[node] = Windowed(
            (self.value(x),), -1, module.out_channels, halo, s, module=_copy(module, self.dtype)
        )

    def _sum(self, node: fx.Node) -> None:
        if len(node.args) != 2 or not all(self.depends(a) for a in node.args):
            self._pointwise(node, torch.add)
            return
        a, b = (self.variable(n) for n in node.args)
        for mixed, other in ((a, b), (b, a)):
            step = self.pending.get(mixed)
            if (
                isinstance(step, Conv1x1)
                and step.added is None
                and step.activation is None
                and len(mixed.users) == 1
                and mixed is not other
                and self.channels_of(mixed) == self.channels_of(other)
            ):
                step.added = self.value(other)
                step.inputs = (*step.inputs, step.added)
                self.pending[node] = self.pending.pop(mixed)
                self.channels[node] = step.channels
                return
        self._pointwise(node, torch.add)

    def _activate(self, node: fx.Node, x: fx.Node, activation: Activation) -> None:
        step = self.pending.get(x)
        self.channels[node] = self.channels_of(x)
        if step is not None and len(x.users) == 1 and step.activation is None:
            step.activation = activation
            self.pending[node] = self.pending.pop(x)
            return
        value = self.value(x)
        self.emit(node, Pointwise((value,), -1, self.channels[node], function=activation.module))

    def _pointwise(self, node: fx.Node, function: Callable[..., Tensor]) -> None:
        """A function of tensors of one shape, and of numbers or per-channel constants."""
        arguments: list[Any] = []
        read: list[fx.Node] = []
        most = 1
        for argument in node.args:
            if self.depends(argument):
                read.append(self.variable(argument))
                arguments.append(None)
            else:
                constant = self.constant(argument)
                if isinstance(constant, Tensor):
                    if constant.dim() > 1 and max(constant.shape[-2:]) > 1:
                        raise NotStreamable("it uses constants that differ from pixel to pixel")
                    most = max(most, *constant.shape[-3:-2])
                    constant = constant.detach().to(self.dtype)
                arguments.append(constant)
        keywords = {k: self.constant(v) for k, v in node.kwargs.items()}
        self.channels[node] = self.channels_of(read[0])
        if any(self.channels_of(n) != self.channels[node] for n in read) or (
            most not in (1, self.channels[node])
        ):
            raise NotStreamable("it broadcasts channels")

        def call(*x: Tensor) -> Tensor:
            given = iter(x)
            return function(*(next(given) if a is None else a for a in arguments), **keywords)

        values = tuple(self.value(n) for n in read)
        self.emit(node, Pointwise(values, -1, self.channels[node], function=call))


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else tuple(value) if value != "same" else value


def _copy(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    return copy.deepcopy(module).to(dtype).eval().requires_grad_(False)

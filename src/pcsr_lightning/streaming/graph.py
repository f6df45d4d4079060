"""Values and steps of a row plan while it is made from a traced network."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from pcsr_lightning.streaming.steps import Conv1x1, Convolve, Pointwise, Step, Windowed


class NotStreamable(Exception):
    """The network cannot be computed row by row; the message says which operation prevents it."""


class RowGraph:
    """Maps the nodes of a trace to numbered values and the steps that compute them.

    Some nodes are fused into the one that reads them: a concatenation into a 1x1 convolution, a
    convolution into the sum or activation after it. They stay in ``pending`` (``parts`` for
    concatenations) until their reader is known.

    Args:
        traced: the network.
        dtype: of the arithmetic.
        in_channels: channels of the network's input.

    Attributes:
        constants: results that do not depend on the input, computed once.
        values: the number of each node's value.
        pending: steps that may still be fused into their reader; they have no number yet.
        parts: the inputs of each concatenation, nested ones flattened.
        channels: of each node's result.
        steps: in execution order.
        factors: rows of each value per row of the input.
    """

    def __init__(self, traced: fx.GraphModule, dtype: torch.dtype, in_channels: int) -> None:
        self.traced, self.dtype, self.in_channels = traced, dtype, in_channels
        self.modules = dict(traced.named_modules())
        self.constants: dict[fx.Node, Any] = {}
        self.values: dict[fx.Node, int] = {}
        self.pending: dict[fx.Node, Convolve | Conv1x1 | Windowed] = {}
        self.parts: dict[fx.Node, list[fx.Node]] = {}
        self.channels: dict[fx.Node, int] = {}
        self.steps: list[Step] = []
        self.factors: dict[int, int] = {}

    def steps_for(self, out: int) -> list[Step]:
        """The steps that compute a value, in order; the last one produces it."""
        wanted = {out}
        steps: list[Step] = []
        for step in reversed(self.steps):
            if step.out in wanted:
                wanted.update(step.inputs)
                steps.insert(0, step)
        return steps

    def halo(self, out: int) -> int:
        """How many input rows above (or below) a value's row can change it, rounded up."""
        halo = {0: 0}
        for step in self.steps:
            factor = self.factors[step.inputs[0]]
            halo[step.out] = max(halo[v] for v in step.inputs) + -(-step.halo // factor)
        return halo[out]

    def value(self, node: fx.Node) -> int:
        """The number of a node's value; a pending step is added to the plan for it."""
        if node not in self.values:
            if node in self.pending:
                self.emit(node, self.pending.pop(node))
            elif node in self.parts:
                inputs = tuple(self.value(p) for p in self.parts[node])
                self.emit(
                    node,
                    Pointwise(
                        inputs, -1, self.channels_of(node), function=lambda *x: torch.cat(x, dim=1)
                    ),
                )
        return self.values[node]

    def emit(self, node: fx.Node, step: Step) -> None:
        """Adds the step that computes a node's result to the plan.

        Raises:
            NotStreamable: its inputs differ in size.
        """
        factors = {self.factors[v] for v in step.inputs}
        if len(factors) > 1:
            raise NotStreamable("it joins values of different sizes")
        step.out = self.new_value(factors.pop() * step.upscale_factor)
        self.steps.append(step)
        self.values[node] = step.out
        self.channels[node] = step.channels

    def new_value(self, factor: int) -> int:
        """The next free number, for a value of ``factor`` rows per row of the input."""
        self.factors[len(self.factors)] = factor
        return len(self.factors) - 1

    def alias(self, node: fx.Node, x: fx.Node) -> None:
        """``node`` is ``x`` under another name."""
        self.values[node] = self.value(x)
        self.channels[node] = self.channels_of(x)

    def channels_of(self, node: fx.Node) -> int:
        """Channels of a node's result."""
        return self.channels.get(node, self.in_channels)

    def depends(self, node: Any) -> bool:
        """Whether this is a node whose result depends on the network's input."""
        return isinstance(node, fx.Node) and node not in self.constants

    def variable(self, node: Any) -> fx.Node:
        """``node``, which must depend on the network's input.

        Raises:
            NotStreamable: it does not.
        """
        if not self.depends(node):
            raise NotStreamable("an operation does not read the network's input where it should")
        assert isinstance(node, fx.Node)
        return node

    def constant(self, value: Any) -> Any:
        """The result of a node that does not depend on the input, or ``value`` itself."""
        return self.constants[value] if isinstance(value, fx.Node) else value

    def evaluate(self, node: fx.Node) -> Any:
        """Computes a node that does not depend on the network's input."""
        if node.op == "get_attr":
            found: Any = self.traced
            for name in str(node.target).split("."):
                found = getattr(found, name)
            return found
        args = fx.node.map_arg(node.args, lambda n: self.constants[n])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: self.constants[n])
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return self.modules[str(node.target)](*args, **kwargs)

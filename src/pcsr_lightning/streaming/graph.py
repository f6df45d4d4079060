"""The bookkeeping of turning a traced network into the steps of a row stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from pcsr_lightning.streaming.steps import Convolve, Mix, Pointwise, Step, Windowed


class NotStreamable(Exception):
    """A network that looks further than rows can tell; the message names what it does."""


class RowGraph:
    """Which node of a trace is kept as which value, and what makes it.

    A node that its only reader may absorb (a concatenation read by a 1x1 convolution, a
    convolution read by a sum or an activation) waits until it is known whether it does.

    Args:
        traced: the network.
        dtype: of the arithmetic.

    Attributes:
        constants: what does not depend on the picture, computed.
        values: the number under which a node's result is kept.
        waiting: steps that a reader may still absorb; they have no number yet.
        parts: what a concatenation joins, nested ones taken apart.
        channels: of each node's result.
        steps: in the order in which they are to be done.
        growth: each value's rows for each of the picture.
    """

    def __init__(self, traced: fx.GraphModule, dtype: torch.dtype) -> None:
        self.traced, self.dtype = traced, dtype
        self.modules = dict(traced.named_modules())
        self.constants: dict[fx.Node, Any] = {}
        self.values: dict[fx.Node, int] = {}
        self.waiting: dict[fx.Node, Convolve | Mix | Windowed] = {}
        self.parts: dict[fx.Node, list[fx.Node]] = {}
        self.channels: dict[fx.Node, int] = {}
        self.steps: list[Step] = []
        self.count = 0
        self.growth: dict[int, int] = {}

    def needed(self, out: int) -> list[Step]:
        """The steps that a value takes; the last one makes it."""
        wanted = {out}
        steps: list[Step] = []
        for step in reversed(self.steps):
            if step.out in wanted:
                wanted.update(step.inputs)
                steps.insert(0, step)
        return steps

    def reach(self, out: int) -> int:
        """How many LR rows above (or below) a value's row can change it; fractions count as one."""
        reach = {0: 0}
        for step in self.steps:
            growth = self.growth[step.inputs[0]]
            reach[step.out] = max(reach[v] for v in step.inputs) + -(-step.halo // growth)
        return reach[out]

    def value(self, node: fx.Node) -> int:
        """The value that a node's result is kept as; makes the step that computes it."""
        if node not in self.values:
            if node in self.waiting:
                self.emit(node, self.waiting.pop(node))
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
        """Adds the step that makes a node's result, which gets a number.

        Raises:
            NotStreamable: its inputs are of different sizes.
        """
        growths = {self.growth[v] for v in step.inputs}
        if len(growths) > 1:
            raise NotStreamable("it joins values of different sizes")
        step.out = self.new_value(growths.pop() * step.growth)
        self.steps.append(step)
        self.values[node] = step.out
        self.channels[node] = step.channels

    def new_value(self, growth: int) -> int:
        """The next number."""
        self.growth[self.count] = growth
        self.count += 1
        return self.count - 1

    def alias(self, node: fx.Node, x: fx.Node) -> None:
        """``node`` is ``x`` under another name."""
        self.values[node] = self.value(x)
        self.channels[node] = self.channels_of(x)

    def channels_of(self, node: fx.Node) -> int:
        """Of a node's result; 3 for the picture."""
        return self.channels.get(node, 3)

    def depends(self, node: Any) -> bool:
        """Whether this is a node whose result depends on the picture."""
        return isinstance(node, fx.Node) and node not in self.constants

    def only(self, node: Any) -> fx.Node:
        """``node``, which must depend on the picture.

        Raises:
            NotStreamable: it does not.
        """
        if not self.depends(node):
            raise NotStreamable("an operation does not read the picture where it should")
        assert isinstance(node, fx.Node)
        return node

    def constant(self, value: Any) -> Any:
        """What a node that does not depend on the picture gave, or ``value`` itself."""
        return self.constants[value] if isinstance(value, fx.Node) else value

    def evaluate(self, node: fx.Node) -> Any:
        """Computes a node that does not depend on the picture."""
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

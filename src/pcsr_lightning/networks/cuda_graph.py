"""Functions recorded as CUDA graphs, which a GPU replays without waiting for Python."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pcsr_lightning.errors import PCSRError, single_line

log = logging.getLogger(__name__)

WARM_UP = 3
"""Calls before the recording, which choose algorithms and allocate what stays: optimizer states."""


class GraphedFunction:
    """A function that does the same work at each call: recorded once, then replayed.

    The first calls run as they are, on the stream of the recording. The next one is recorded with
    copies of its inputs; from then on inputs are copied there and the graph is replayed. A call
    with inputs of other shapes runs as it is, as do all calls if the recording fails.

    Args:
        function: of tensors, tuples and dataclasses of them. It must not wait for results on the
            CPU, nor draw random numbers from other generators than the default one.
        device: of the tensors.
        name: of what it does, for warnings.
    """

    def __init__(
        self, function: Callable[..., Any], device: torch.device, name: str = "training"
    ) -> None:
        self.function, self.device, self.name = function, device, name
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.calls, self.told = 0, False
        self.graph: torch.cuda.CUDAGraph | None = None
        self.key: object = None
        self.inputs: Any = None
        self.outputs: Any = None

    def __call__(self, inputs: tuple[Any, ...], constants: object) -> Any:
        """What the function returns; the next replay overwrites it.

        Args:
            inputs: of the function.
            constants: plain values that the graph keeps as they are. Calls with others do not use
                it.
        """
        self.calls += 1
        key = ([(x.shape, x.dtype) for x in tensors(inputs)], constants)
        if self.calls == WARM_UP + 1:
            self._record(inputs, key)
        if self.graph is None or key != self.key:
            self._say_once()
            return self._run(inputs)
        for kept, given in zip(tensors(self.inputs), tensors(inputs), strict=True):
            kept.copy_(given)
        self.graph.replay()
        return self.outputs

    def _run(self, inputs: tuple[Any, ...]) -> Any:
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream), fastest_convolutions():
            outputs = self.function(*inputs)
        current.wait_stream(self.stream)
        return outputs

    def _record(self, inputs: tuple[Any, ...], key: Any) -> None:
        graph, self.inputs, self.key = torch.cuda.CUDAGraph(), cloned(inputs), key
        # Of this thread alone: others, which load data, may use CUDA meanwhile.
        recording = torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local")
        try:
            with fastest_convolutions(), recording:
                self.outputs = self.function(*self.inputs)
        except (RuntimeError, PCSRError) as error:
            reason = single_line(str(error))[:200]
            log.warning("%s runs without a CUDA graph; recording one failed: %s", self.name, reason)
        else:
            self.graph = graph

    def _say_once(self) -> None:
        if self.graph is not None and not self.told:
            self.told = True
            log.warning(
                "steps run without the CUDA graph where the shape of the batch, or a setting of "
                "the optimizer beside its rate, is not that of step %d of this run",
                WARM_UP + 1,
            )


class GraphedByShape:
    """A network without side effects as a CUDA graph for each input shape that comes again.

    The first input of a shape runs as it is, and so does every input on a CPU and every large one,
    which keeps a GPU busy anyway. Several threads may call it.

    Args:
        network: from a tensor to a new one.
        kept: how many graphs are kept, the latest used; each holds the memory of one run.
        largest: pixels ``B * h * w`` of an input, from which on there are no graphs.
    """

    def __init__(
        self, network: Callable[[Tensor], Tensor], kept: int = 2, largest: int = 2**18
    ) -> None:
        self.network, self.kept, self.largest = network, kept, largest
        self._graphs: dict[object, GraphedFunction | None] = {}
        self._lock = threading.Lock()

    def __call__(self, x_BhwC: Tensor) -> Tensor:
        """The network's result, a tensor of its own."""
        if x_BhwC.device.type != "cuda" or x_BhwC[..., 0].numel() > self.largest:
            return self.network(x_BhwC)
        key = (x_BhwC.shape, x_BhwC.dtype, uses_tf32("conv"), uses_tf32("matmul"))
        with self._lock:
            seen = key in self._graphs
            graph = self._graphs.pop(key, None)
            if seen and graph is None:
                graph = GraphedFunction(self.network, x_BhwC.device, "the backbone")
            self._graphs[key] = graph
            while len(self._graphs) > self.kept:
                del self._graphs[next(iter(self._graphs))]
            # The next replay overwrites what a graph returns.
            return self.network(x_BhwC) if graph is None else graph((x_BhwC,), None).clone()


def uses_tf32(operation: str) -> bool:
    """Whether ``conv`` or ``matmul`` of float32 on CUDA is allowed to use TF32 now."""
    # The older switches cannot be read once the newer ones were set.
    return bool(torch._C._get_fp32_precision_getter("cuda", operation) == "tf32")


@contextmanager
def fastest_convolutions() -> Iterator[None]:
    """cuDNN tries its algorithms and takes the fastest, unless the run is to be deterministic.

    Only here, where shapes stay the same: validation pictures have many.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or not torch.backends.cudnn.deterministic
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def tensors(value: Any) -> list[Tensor]:
    """The tensors in tuples and dataclasses, in their order."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in _parts(value).values() for tensor in tensors(part)]


def cloned(value: Any) -> Any:
    """A copy, with tensors of its own, of a tensor or of tuples and dataclasses of them."""
    if isinstance(value, Tensor):
        return value.clone()
    copies = {key: cloned(part) for key, part in _parts(value).items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **copies)
    if isinstance(value, tuple):
        named = hasattr(value, "_fields")
        return type(value)(*copies.values()) if named else tuple(copies.values())
    return value


def _parts(value: Any) -> dict[str, Any]:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return {str(key): part for key, part in enumerate(value)} if isinstance(value, tuple) else {}

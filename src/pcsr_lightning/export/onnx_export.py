"""Exports a network to an ONNX file with its routing, for other runtimes."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import pcsr_lightning
from pcsr_lightning import atomic_io
from pcsr_lightning.errors import ModelFileError, PCSRError
from pcsr_lightning.export.onnx_graph import RoutedGraph, UnroutedGraph, onnx_graph
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.routing import CostRule, RoutingConfig

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""The oldest that PyTorch's exporter writes without converting, for the sake of older runtimes."""
LARGEST_CONSTANT = 2**24
"""Elements of the largest constant that is computed while exporting."""
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def export_onnx(
    model: PCSR | Original,
    path: str | Path,
    scale: int = 4,
    cost: CostRule | str = CostRule.SOFTMAX,
    refine: bool | None = None,
    *,
    name: str | None = None,
) -> Path:
    """Writes a network for one integer scale as a single ONNX file, atomically.

    The file's inputs are ``image``, float32 ``(1, 3, h, w)`` RGB in [0, 1] of any height and width,
    and ``k``, a float32 scalar: lower sends more pixels to heavier upsamplers (Eq. 10). Its outputs
    are ``enlarged``, float32 ``(1, 3, H, W)`` in [0, 1], and ``classes``, uint8 ``(1, H, W)``, 0
    the heaviest. Where there is nothing to route (one class, or an original model) there is no
    ``k``, and all classes are 0. Adaptive decisions and budgets are not exported. The file does
    not check its inputs.

    Args:
        model: on any device and in any precision; the file is in float32.
        path: what to write.
        scale: an integer from 1 to 16; an original model's own.
        cost: ``softmax`` (Eq. 9), or ``proportional`` as the published code has it.
        refine: smooth light pixels beside heavy ones (Sec. 3.4); ``None``: from scale 4 up.
        name: kept in the file's metadata, beside the architecture, the options and the library's
            version.

    Returns:
        ``path``.

    Raises:
        ConfigError: a scale, cost rule or model that cannot be exported.
        ModelFileError: the file cannot be written.
        PCSRError: a package is missing; the message says how to install it.

    Example:
        >>> export_onnx(pcsr_lightning.load("fsrcnn-pcsr-x4"), "pcsr.onnx")
        >>> session = onnxruntime.InferenceSession("pcsr.onnx")
        >>> feed = {"image": picture_13hw, "k": numpy.array(0, numpy.float32)}
        >>> enlarged, classes = session.run(None, feed)
    """
    return write_onnx(onnx_bytes(model, scale, cost, refine, name=name), path)


def onnx_bytes(
    model: PCSR | Original,
    scale: int = 4,
    cost: CostRule | str = CostRule.SOFTMAX,
    refine: bool | None = None,
    *,
    name: str | None = None,
) -> bytes:
    """The content of the file that :func:`export_onnx` writes; same arguments and errors."""
    check_packages()
    graph = onnx_graph(model, scale, cost, refine)
    proto = _translate(graph)
    metadata = {
        "pcsr_lightning.version": pcsr_lightning.__version__,
        "pcsr_lightning.name": name or f"{model.backbone.name}-{model.config()['kind']}",
        "pcsr_lightning.network": json.dumps(model.config()),
        "pcsr_lightning.scale": str(scale),
    }
    if graph.routed:
        metadata["pcsr_lightning.cost"] = CostRule(cost).value
        metadata["pcsr_lightning.refine"] = json.dumps(
            RoutingConfig(refine=refine).refines((scale, scale))
        )
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    proto.producer_name = "pcsr_lightning"
    proto.producer_version = pcsr_lightning.__version__
    data: bytes = proto.SerializeToString()
    return data


def check_packages() -> None:
    """Checks that the optional packages are installed.

    Raises:
        PCSRError: one is missing; the message says how to install it.
    """
    for package in _PACKAGES:
        if util.find_spec(package) is None:
            raise PCSRError(
                f"ONNX files need the package {package}, which is not installed; in the "
                "checkout: pip install -e '.[onnx]'"
            )


def write_onnx(data: bytes, path: str | Path) -> Path:
    """Writes a model file atomically.

    Raises:
        ModelFileError: it cannot be written.
    """
    path = Path(path)
    try:
        atomic_io.atomic_write(path, data)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written ({error.strerror})") from None
    return path


def _translate(graph: RoutedGraph | UnroutedGraph) -> onnx.ModelProto:
    """The module as an ONNX model, without paths of this machine."""
    from onnxscript import optimizer

    inputs: dict[str, Any] = {"image": torch.rand(1, 3, 20, 24)}
    shapes: dict[str, Any] = {"image": {2: torch.export.Dim("h"), 3: torch.export.Dim("w")}}
    if graph.routed:
        inputs["k"], shapes["k"] = torch.tensor(0.0), None
    with _quiet():
        program = torch.onnx.export(
            graph.eval(),
            kwargs=inputs,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(inputs),
            output_names=["enlarged", "classes"],
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        # Folded batch norms are constants however large; by default only small ones are folded.
        optimizer.optimize_ir(
            program.model, input_size_limit=LARGEST_CONSTANT, output_size_limit=LARGEST_CONSTANT
        )
    for node in program.model.graph:
        # Stack traces, with this machine's paths.
        node.metadata_props.clear()
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what PyTorch reports of its own parts while it exports."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    # It reports that torchvision is not installed.
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated")
            yield
    finally:
        log.setLevel(level)

"""The original models and PCSR in this library, plain PyTorch, OpenVINO and onnxruntime.

    python benchmarks/engines.py
    python benchmarks/engines.py --sizes 960x540 --only "ours, fp32" "OpenVINO, fp32"

Prints one table for each model and size, and writes them to ``engines.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _inputs import SCALE, Models, Photograph, find_models, find_photograph, shared_folder
from _measure import (
    MIB,
    Timing,
    interleaved,
    machine_facts,
    markdown,
    matrix_products,
    matrix_rate,
    peak_bytes,
    positive,
    run_main,
    say,
)
from _ways import FAST_ORIGINAL, ORIGINAL, OURS, Outcome, Way, load_for, make_call, warm_up
from torch import Tensor

from pcsr_lightning.errors import PCSRError
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.export.onnx_export import onnx_bytes
from pcsr_lightning.networks import PCSR, Original

PRECISIONS = ("fp32", "bf16")
K_0 = "k = 0"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python benchmarks/engines.py", description=(__doc__ or "").split("\n\n")[0]
    )
    p.add_argument(
        "--sizes", nargs="+", type=_size, default=[(276, 420)], metavar="WxH",
        help="of the LR pictures (default: 420x276)",
    )  # fmt: skip
    p.add_argument("--backbones", nargs="+", choices=["carn", "fsrcnn"], default=["carn", "fsrcnn"])
    p.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT",
        help="ways whose name contains one of these, e.g. 'ours, fp32' 'OpenVINO, fp32'",
    )  # fmt: skip
    p.add_argument("--repeats", type=positive, default=5, metavar="N", help="rounds (default: 5)")
    p.add_argument("--threads", type=positive, metavar="N", help="default: as torch chooses")
    p.add_argument(
        "--cpu-time", action="store_true",
        help="CPU seconds: for a machine with other work, with --threads 1",
    )  # fmt: skip
    p.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("results"), help="default: %(default)s"
    )
    p.set_defaults(worker=None)
    return p


def _size(text: str) -> tuple[int, int]:
    w, _, h = text.partition("x")
    return positive(h), positive(w)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns its exit code."""
    args = parser().parse_args(argv)
    return run_main(args, lambda: None, lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    shared = shared_folder()
    photograph = find_photograph(shared)
    args.out.mkdir(parents=True, exist_ok=True)
    clock = time.process_time if args.cpu_time else time.perf_counter
    parts: list[str] = []
    for backbone in args.backbones:
        original = find_models(shared, None, None, backbone).original
        models = Models(f"{backbone}-pcsr-x4", original)
        for lr_size in args.sizes:
            say(f"{backbone}, LR {lr_size[0]} x {lr_size[1]}")
            parts.append(_table(models, photograph, lr_size, args, clock))
            text = "\n\n".join([_heading(args), *parts])
            # After each table: a run that is cut short leaves what it has found.
            (args.out / "engines.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def _heading(args: argparse.Namespace) -> str:
    machine = machine_facts(torch.get_num_threads())
    packages = [p for p in ("torch", "openvino", "onnxruntime") if util.find_spec(p)]
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in packages)
    return (
        f"# Engines\n\n{machine['processor']}, {machine['threads']} thread(s), {versions}, load "
        f"{machine['load_before']}, peak memory of the process {peak_bytes() / MIB:.0f} MiB. "
        f"{'CPU seconds' if args.cpu_time else 'Seconds'}, medians of {args.repeats} rounds in "
        "which the rows take turns; the least and the most in brackets."
    )


def _table(
    models: Models,
    photograph: Photograph,
    lr_size: tuple[int, int],
    args: argparse.Namespace,
    clock: Callable[[], float],
) -> str:
    """All ways to one picture with one backbone."""
    lr_13hw, hr_13HW = photograph.pair(lr_size)
    calls, missing = _calls(models, lr_13hw, args.only)
    seen: dict[str, tuple[float, float]] = {}

    def look(name: str, outcome: Outcome | None) -> None:
        if outcome is not None:
            seen[name] = (psnr(outcome.image, hr_13HW, SCALE), outcome.gmacs)

    products = {p: matrix_products(p) for p in {way.precision for way in calls}}
    by_name: dict[str, Callable[[], Outcome | None]] = {w.name: c for w, c in calls.items()}
    timings = interleaved({**by_name, **products}, args.repeats, look, clock)
    rates = {precision: matrix_rate(timings[precision]) for precision in products}
    plain = timings.get(Way(ORIGINAL).name)
    rows = [
        _row(way, timings[way.name], *seen[way.name], rates[way.precision], plain) for way in calls
    ]
    header = ["way", "precision", "seconds", "original, PyTorch / its", "GFLOPs", "GFLOP/s"]
    header += ["of matrix rate", "PSNR dB"]
    rate = ", ".join(f"{name} {2 * rate:.0f}" for name, rate in sorted(rates.items()))
    return "\n\n".join(
        [
            f"## {models.pcsr}, LR {lr_size[1]} x {lr_size[0]} (width x height), x{SCALE}",
            markdown(header, rows),
            f"Matrix products, in the same rounds: {rate} GFLOP/s.",
            *(f"Left out: {name}: {why}" for name, why in missing.items()),
        ]
    )


def _row(
    way: Way, timing: Timing, decibels: float, gmacs: float, rate: float, plain: Timing | None
) -> list[str]:
    speed = gmacs / timing.median
    times = "-" if plain is None else f"{plain.median / timing.median:.2f}"
    numbers = [f"{2 * gmacs:.1f}", f"{2 * speed:.0f}", f"{100 * speed / rate:.0f}%"]
    return [way.kind, way.precision, timing.text(), times, *numbers, f"{decibels:.3f}"]


def _calls(
    models: Models, lr_13hw: Tensor, only: Sequence[str]
) -> tuple[dict[Way, Callable[[], Outcome]], dict[str, str]]:
    """The ways that can be gone here, warmed up, and why others cannot."""
    calls: dict[Way, Callable[[], Outcome]] = {}
    missing: dict[str, str] = {}

    def try_way(way: Way, make: Callable[[], Callable[[], Outcome]]) -> None:
        if any(text in way.name for text in only):
            try:
                calls[way] = make()
            except PCSRError as error:
                missing[way.name] = str(error)

    kinds = [FAST_ORIGINAL, OURS] if models.original is not None else [OURS]
    if models.original is None:
        missing["original"] = "no original model of this backbone was found; set PCSR_SHARED"
    else:
        try_way(Way(ORIGINAL), partial(_torch_way, Way(ORIGINAL), models, lr_13hw))
    for kind in kinds:
        mode, label = (K_0, "ours") if kind == OURS else (None, "original")
        for precision in PRECISIONS:
            way = Way(kind, precision, mode)
            try_way(way, partial(_torch_way, way, models, lr_13hw))
        model = load_for(Way(kind), models)
        # One file for both; its inputs; its cost.
        common = (
            cache(partial(onnx_bytes, model, SCALE)),
            _feed(model, lr_13hw),
            _torch_way(Way(kind, mode=mode), models, lr_13hw)().gmacs,
        )
        # onnxruntime has no bfloat16 kernels for CPUs.
        way = Way(f"{label}, exported, onnxruntime", "fp32", mode)
        try_way(way, partial(_onnxruntime, *common))
        for precision in PRECISIONS:
            way = Way(f"{label}, exported, OpenVINO", precision, mode)
            try_way(way, partial(_openvino, *common, precision))
    return calls, missing


def _torch_way(way: Way, models: Models, lr_13hw: Tensor) -> Callable[[], Outcome]:
    model = load_for(way, models)
    warm_up(way, model, lr_13hw)
    return make_call(way, model, lr_13hw)


def _feed(model: PCSR | Original, lr_13hw: Tensor) -> dict[str, Any]:
    """The exported graph's inputs."""
    routed = {} if model.num_classes == 1 else {"k": np.zeros((), np.float32)}
    return {"image": lr_13hw.numpy(), **routed}


def _onnxruntime(
    exported: Callable[[], bytes], feed: dict[str, Any], gmacs: float
) -> Callable[[], Outcome]:
    """The file in onnxruntime.

    Raises:
        PCSRError: it is missing.
    """
    _require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(exported(), options, ["CPUExecutionProvider"])

    def call() -> Outcome:
        image, _ = session.run(None, feed)
        return Outcome(torch.from_numpy(image), None, gmacs)

    call()
    return call


def _openvino(
    exported: Callable[[], bytes], feed: dict[str, Any], gmacs: float, precision: str
) -> Callable[[], Outcome]:
    """The same file in OpenVINO, compiled for the picture's size.

    Raises:
        PCSRError: OpenVINO is missing, cannot run the graph, or not in this precision.
    """
    _require("openvino")
    import openvino

    core = openvino.Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in able:
        raise PCSRError("OpenVINO says that this processor does not multiply bfloat16 numbers")
    config = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }

    def call() -> Outcome:
        found = compiled(feed, share_inputs=True, share_outputs=True)
        return Outcome(torch.from_numpy(found["enlarged"]), None, gmacs)

    try:
        graph = core.read_model(exported())
        graph.reshape({"image": list(feed["image"].shape)})
        compiled = core.compile_model(graph, "CPU", config)
        call()
    except RuntimeError as error:
        said = [line for line in str(error).splitlines() if line.strip()]
        raise PCSRError(f"OpenVINO cannot run the graph: {said[-1].strip()}") from error
    return call


def _require(package: str) -> None:
    """Raises:
    PCSRError: the package is not installed.
    """
    if util.find_spec(package) is None:
        raise PCSRError(
            f"{package} is not installed; in the checkout: pip install -e '.[benchmarks]'"
        )


if __name__ == "__main__":
    sys.exit(main())

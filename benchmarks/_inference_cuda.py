"""Upscaling on a CUDA device: that it gives what the CPU gives, how fast, and how near the limits.

One call takes at most about four minutes: rows for which no time is left are left out and named.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from _inputs import SCALE, Photograph, load_original, load_pcsr
from _measure import markdown, say
from plain_way import plain_original, plain_upscale
from torch import Tensor

from pcsr_lightning.inference import Execution, RoutingConfig, original_flops, upscale_by
from pcsr_lightning.inference.features import _plan
from pcsr_lightning.inference.flops import model_macs
from pcsr_lightning.networks import PCSR, Original, evaluating

SIZES = ((270, 512), (540, 960), (1080, 1920))
QUICK_SIZES = ((12, 20),)
SMALL = (72, 121)
"""LR size of the comparison with the CPU."""
SECONDS = 200
"""After so long no further row is begun."""
ROUTINGS = {
    "k = 0": RoutingConfig(k=0.0, cost="proportional"),
    "adaptive": RoutingConfig(adaptive=True),
    "budget .5": RoutingConfig(budget=0.5),
    "all heavy": RoutingConfig(fixed_class=0),
}
PRECISIONS = ("fp32", "bf16")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
REPEATS, WARM = 5, 6  # a graph is recorded at the fifth call


class Card:
    """The device: its measured limits, and how calls on it are timed.

    Args:
        device: CUDA, or a CPU for a trial of this script.
        started: when the benchmark began.
    """

    def __init__(self, device: torch.device, started: float) -> None:
        self.device, self.started = device, started
        self.rates = {name: self._products(DTYPES[name]) for name in PRECISIONS}
        buffer = torch.empty(2**28 if self.is_cuda else 2**22, device=device)
        copy = torch.empty_like(buffer)
        self.bandwidth = 2 * 4 * buffer.numel() / self.seconds(lambda: copy.copy_(buffer))[0]

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def late(self) -> bool:
        """Whether no further row is to be begun."""
        return time.perf_counter() - self.started > SECONDS

    def wait(self) -> None:
        """Until all work is done."""
        if self.is_cuda:
            torch.cuda.synchronize()

    def seconds(
        self, call: Callable[[], object], repeats: int = REPEATS, warm: int = 2
    ) -> tuple[float, float]:
        """The median of some calls, and the most GiB that were allocated."""
        for _ in range(warm):
            call()
        self.wait()
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            self.wait()
            times.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.is_cuda else 0.0
        return statistics.median(times), peak

    def _products(self, dtype: torch.dtype) -> float:
        """Multiply-adds a second of a large matrix product."""
        side = 8192 if self.is_cuda else 256
        a, b = (torch.randn(side, side, device=self.device).to(dtype) for _ in range(2))
        return side**3 / self.seconds(lambda: a @ b)[0]


def equality(
    model: PCSR, lr_13hw: Tensor, card: Card, scales: tuple[float, ...]
) -> list[list[str]]:
    """Of every routing: pixels of another class than on the CPU, and the largest difference of the
    others."""
    rows = []
    plain, fast = Execution(fused=False), Execution(fused=True if card.is_cuda else None)
    for scale in scales:
        for name, routing in ROUTINGS.items():
            expected = upscale_by(model.cpu(), lr_13hw.cpu(), routing, plain, scale)
            model.to(card.device)
            row = [f"{model.backbone.name}, x{scale:g}, {name}"]
            for execution in (plain, fast, Execution("bf16")):
                if execution.precision == "bf16" and not card.is_cuda:
                    continue
                found = upscale_by(model, lr_13hw.to(card.device), routing, execution, scale)
                same_BHW = found.assignment.cpu() == expected.assignment
                apart = (found.image.cpu() - expected.image).abs().amax(dim=1)
                worst = float((apart * same_BHW).max())
                row.append(f"{100 * float((~same_BHW).float().mean()):.3f} %, {worst:.1e}")
            rows.append(row)
    return rows


def speed(
    model: PCSR, original: Original | None, lr_13hw: Tensor, card: Card, precisions: tuple[str, ...]
) -> list[list[str]]:
    """A row for each way to one picture."""
    rows: list[list[str]] = []
    h, w = lr_13hw.shape[-2:]
    published = 0.0

    def add(name: str, call: Callable[[], object], gmacs: float, kind: str, moved: float) -> None:
        nonlocal published
        label = f"{model.backbone.name}, {w} x {h}, {name}"
        if card.late:
            rows.append([label, "no time left", "", "", "", "", ""])
            return
        say(label)
        try:
            taken, gib = card.seconds(call, warm=WARM)
        except RuntimeError as error:
            rows.append([label, f"failed: {str(error).splitlines()[0][:80]}", "", "", "", "", ""])
            return
        published = published or taken
        rows.append(
            [
                label, f"{1e3 * taken:.2f}", f"{published / taken:.1f}", f"{gib:.2f}",
                f"{gmacs:.0f}", f"{1e9 * gmacs / card.rates[kind] / taken:.0%}",
                f"{moved / card.bandwidth / taken:.0%}" if moved else "",
            ]
        )  # fmt: skip

    small = lr_13hw[..., : min(h, 32), : min(w, 32)].contiguous()
    macs = model_macs(model).plain.picture((h, w), [0, SCALE**2 * h * w]) / 1e9
    with card.device:  # the published way makes its coordinates where tensors are made
        add("published way, fp32, k = 0", lambda: plain_upscale(model, lr_13hw), macs, "fp32", 0)
    if original is not None:
        gmacs = original_flops(original, h * w).gmacs
        add("original, fp32", lambda: plain_original(original, lr_13hw), gmacs, "fp32", 0)
        for name, call in original_ways(original, lr_13hw, card):
            add(f"original, {name}", call, gmacs, "bf16", 0)
    for precision in precisions:
        for name, routing in ROUTINGS.items():
            execution = Execution(precision)
            upscale_by(model, small, routing, execution, SCALE)
            result = upscale_by(model, lr_13hw, routing, execution, SCALE)
            gmacs, moved = result.flops.gmacs, traffic(model, (h, w), DTYPES[precision])
            add(
                f"ours, {precision}, {name}",
                lambda r=routing, e=execution: upscale_by(model, lr_13hw, r, e, SCALE),
                gmacs, precision, moved,
            )  # fmt: skip
    k, last = ROUTINGS["k = 0"], Execution(precisions[-1])
    add(
        f"ours, {precisions[-1]}, k = 0, 8 bits",
        lambda: upscale_by(model, lr_13hw, k, last, SCALE, bits=8), 0, precisions[-1], 0,
    )  # fmt: skip
    plain = Execution(precisions[-1], fused=False)
    add(
        f"ours, {precisions[-1]}, k = 0, neither kernel nor plan",
        lambda: upscale_by(model, lr_13hw, k, plain, SCALE), 0, precisions[-1], 0,
    )  # fmt: skip
    return rows


def original_ways(
    original: Original, lr_13hw: Tensor, card: Card
) -> list[tuple[str, Callable[[], object]]]:
    """The original network with what PyTorch offers: bf16, channels last, compiled."""
    wide = lr_13hw.contiguous(memory_format=torch.channels_last)

    def run(network: Callable[[Tensor], Tensor]) -> Tensor:
        autocast = torch.autocast(card.device.type, torch.bfloat16)
        with torch.inference_mode(), evaluating(original), autocast:
            return network(wide).clamp(0, 1)

    original.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ways: list[tuple[str, Callable[[], object]]] = [("bf16, channels last", lambda: run(original))]
    if card.is_cuda:
        compiled = torch.compile(original)
        ways.append(("bf16, channels last, compiled", lambda: run(compiled)))
    return ways


def traffic(model: PCSR, lr_size: tuple[int, int], dtype: torch.dtype) -> float:
    """Bytes that must move if every step of the backbone reads its inputs and writes its result
    once, and every HR pixel is written once."""
    pixels = lr_size[0] * lr_size[1]
    plan = _plan(model.backbone, dtype, planar=False)
    if plan is None:
        return 0.0
    channels = {0: plan.in_channels} | {step.out: step.channels for step in plan.steps}
    values = sum(sum(channels[v] for v in (*step.inputs, step.out)) for step in plan.steps)
    return float(pixels * (values * dtype.itemsize + SCALE**2 * (3 * 4 + 1)))


class Warnings(logging.Handler):
    """Keeps what the library says: kernels that could not be used."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def report(
    names: list[tuple[str, str | None]], photograph: Photograph, device: str, quick: bool
) -> str:
    """All tables.

    Args:
        names: PCSR models, each with its original if there is one.
        photograph: what pictures are cut from.
        device: ``cuda``; ``cpu`` for a trial.
        quick: small pictures.
    """
    warnings = Warnings()
    logging.getLogger("pcsr_lightning").addHandler(warnings)
    card = Card(torch.device(device), time.perf_counter())
    precisions = PRECISIONS if card.is_cuda else ("fp32",)
    models = [(load_pcsr(p), o and load_original(o).to(device)) for p, o in names]
    same: list[list[str]] = []
    small, scales = (QUICK_SIZES[0], (SCALE,)) if quick else (SMALL, (SCALE, 2.5))
    for model, _ in models:
        same += equality(model, photograph.pair(small)[0], card, scales)
    head = ["largest difference from the CPU", "fp32, plain way"]
    head += ["fp32", "bf16"] if card.is_cuda else ["here"]
    parts = [_heading(card), "## The same picture", markdown(head, same)]
    print("\n\n".join(parts), flush=True)
    columns = [
        "", "ms", "times the published way", "GiB", "giga multiply-adds", "of the products' rate",
        "of the memory's rate",
    ]  # fmt: skip
    for size in QUICK_SIZES if quick else SIZES:
        lr_13hw = photograph.pair(size)[0].to(device)
        rows: list[list[str]] = []
        for model, original in models:
            rows += speed(model, original, lr_13hw, card, precisions)
        parts += [f"## {size[1]} x {size[0]} to x{SCALE}", markdown(columns, rows)]
        print("\n\n".join(parts[-2:]), flush=True)
    said = [f"- {text}" for text in dict.fromkeys(warnings.said)]
    parts += ["## Warnings", "\n".join(said) or "None."]
    print("\n\n".join(parts[-2:]), flush=True)
    logging.getLogger("pcsr_lightning").removeHandler(warnings)
    return "\n\n".join(parts)


def _heading(card: Card) -> str:
    name: Any = torch.cuda.get_device_name() if card.is_cuda else "a CPU: the numbers mean nothing"
    rates = ", ".join(f"{k} {2 * v / 1e12:.1f} TFLOP/s" for k, v in card.rates.items())
    return (
        f"# Inference on {name}, torch {torch.__version__}\n\nMeasured limits: {rates} in matrix "
        f"products, {card.bandwidth / 1e12:.2f} TB/s in copies. Medians of {REPEATS} calls, the "
        "picture on the device before and after; memory is what PyTorch allocated at most."
    )

"""Tables 1 and 2: every way to the same picture, and ours against the original's best."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _inputs import SCALE, Models, Photograph
from _measure import (
    MIB,
    Timing,
    interleaved,
    markdown,
    matrix_products,
    matrix_rate,
    run_worker,
    say,
)
from _ways import (
    BUDGET,
    FAST_ORIGINAL,
    OURS,
    PLAIN,
    Outcome,
    Way,
    all_ways,
    describe,
    load_for,
    make_call,
    warm_up,
)
from torch import Tensor

from pcsr_lightning.errors import PCSRError
from pcsr_lightning.evaluation.metrics import psnr

SIZES = ((276, 420), (540, 960))
QUICK_SIZES = ((24, 40),)
PRECISIONS = ("fp32", "bf16")
FASTER = {"fp32": 2.7, "bf16": 5.0}
SAME_CLASSES = 0.9995
DECIBELS_LOST = 0.01
TIMES_PER_MACS = 1.05


@dataclass(frozen=True)
class Measured:
    """What was found out about one way at one size.

    Attributes:
        timing: of the call.
        gmacs: its cost, as that way counts it.
        psnr: against the HR picture, in dB.
        same: the part of the pixels with the class that the plain way gives them.
        before: the peak memory of a fresh process before the call, in bytes.
        after: the same after it.
    """

    timing: Timing
    gmacs: float
    psnr: float
    same: float | None
    before: int = 0
    after: int = 0


@dataclass(frozen=True)
class Field:
    """All ways at one size, the matrix-product rates met meanwhile, and what could not run.

    ``rates`` are thousands of millions of multiply-adds a second.
    """

    lr_size: tuple[int, int]
    rows: dict[Way, Measured]
    rates: dict[str, float]
    missing: dict[str, str]

    def facts(self) -> dict[str, Any]:
        """Plain values for the JSON file."""
        rows = [{**asdict(way), **asdict(found)} for way, found in self.rows.items()]
        plain = {"lr_size": self.lr_size, "gmacs_per_second": self.rates, "missing": self.missing}
        return {**plain, "rows": rows}


def measure(
    models: Models,
    photograph: Photograph,
    lr_size: tuple[int, int],
    rounds: int,
    threads: int,
    memory: bool,
) -> Field:
    """Times all ways in turn, then, if asked for, takes their memory in fresh processes."""
    say(f"LR {lr_size[0]} x {lr_size[1]}, all ways")
    lr_13hw, hr_13HW = photograph.pair(lr_size)
    ways, missing = _usable(models, lr_13hw)
    networks = {way: load_for(way, models) for way in ways}
    classes_HW = _budget_classes(networks, lr_13hw)
    calls = {way.name: make_call(way, networks[way], lr_13hw, classes_HW) for way in ways}
    seen: dict[str, tuple[float, float]] = {}
    classes: dict[str, Tensor] = {}

    def look(name: str, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        seen[name] = (psnr(outcome.image, hr_13HW, SCALE), outcome.gmacs)
        if outcome.classes is not None:
            classes[name] = outcome.classes

    products = {precision: matrix_products(precision) for precision in {w.precision for w in ways}}
    timings = interleaved({**calls, **products}, rounds, look)
    peaks = _peaks(ways, models, lr_13hw, classes_HW, threads) if memory else {}
    rows = {}
    for way in ways:
        decibels, gmacs = seen[way.name]
        same = _same(way, classes)
        rows[way] = Measured(timings[way.name], gmacs, decibels, same, *peaks.get(way, ()))
    rates = {precision: matrix_rate(timings[precision]) for precision in products}
    return Field(lr_size, rows, rates, missing)


def _usable(models: Models, lr_13hw: Tensor) -> tuple[list[Way], dict[str, str]]:
    """The ways that can be gone on this machine, warmed up, and why others cannot."""
    usable: list[Way] = []
    missing: dict[str, str] = {}
    if models.original is None:
        missing["original"] = "no original model of this backbone was found; give --original"
    for way in all_ways(models.original is not None, PRECISIONS):
        try:
            warm_up(way, load_for(way, models), lr_13hw)
        except PCSRError as error:
            missing[way.name] = str(error)
        else:
            usable.append(way)
    return usable, missing


def _budget_classes(networks: dict[Way, Any], lr_13hw: Tensor) -> Tensor | None:
    """What ours decides under a budget; the plain way has no rule of its own for one."""
    way = Way(OURS, "fp32", BUDGET)
    if way not in networks:
        return None
    return make_call(way, networks[way], lr_13hw)().classes


def _same(way: Way, classes: dict[str, Tensor]) -> float | None:
    plain = Way(PLAIN, mode=way.mode).name
    if way.mode is None or way.name not in classes or plain not in classes:
        return None
    return float((classes[way.name] == classes[plain]).double().mean())


def _peaks(
    ways: list[Way], models: Models, lr_13hw: Tensor, classes_HW: Tensor | None, threads: int
) -> dict[Way, tuple[int, int]]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        lr_file, classes_file = Path(folder, "lr.npy"), Path(folder, "classes.npy")
        np.save(lr_file, lr_13hw.numpy())
        if classes_HW is not None:
            np.save(classes_file, classes_HW.to(torch.uint8).numpy())
        for way in ways:
            say(f"memory: {way.name}")
            report = run_worker(describe(way, models, lr_file, classes_file), threads)
            found[way] = (report["before"], report["after"])
    return found


def table_1(field: Field) -> str:
    """Every way beside the plain one, and whether the goals are met."""
    header = ["way", "precision", "classes by", "seconds", "plain way's / its", "peak memory MiB"]
    header += ["of it by the call", "PSNR dB", "same classes", "GMACs", "of matrix rate"]
    rows = []
    for way, found in field.rows.items():
        plain = field.rows.get(Way(PLAIN, mode=way.mode or "k = 0"))
        speed = found.gmacs / found.timing.median / field.rates[way.precision]
        rows.append(
            [
                way.kind,
                way.precision,
                way.mode or "-",
                found.timing.text(),
                "-" if plain is None else f"{plain.timing.median / found.timing.median:.2f}",
                f"{found.after / MIB:.0f}" if found.after else "-",
                f"{(found.after - found.before) / MIB:.0f}" if found.after else "-",
                f"{found.psnr:.3f}",
                "-" if found.same is None else f"{100 * found.same:.3f}%",
                f"{found.gmacs:.2f}",
                f"{100 * speed:.0f}%",
            ]
        )
    lines = [_title(field), markdown(header, rows), _rates(field), *_goals_1(field)]
    return "\n\n".join(lines)


def _title(field: Field) -> str:
    h, w = field.lr_size
    return f"LR {h} x {w} (height x width) to {SCALE * h} x {SCALE * w}"


def _rates(field: Field) -> str:
    rates = ", ".join(f"{name} {2 * rate:.0f}" for name, rate in field.rates.items())
    note = f"Matrix products, in the same rounds: {rates} GFLOP/s."
    gone = [f"Left out: {name}: {why}." for name, why in field.missing.items()]
    return "\n\n".join([note, *gone])


def _goals_1(field: Field) -> list[str]:
    """One line a goal, with the worst case over the modes."""
    lines = []
    for precision, goal in FASTER.items():
        ours = {w: m for w, m in field.rows.items() if (w.kind, w.precision) == (OURS, precision)}
        if not ours:
            continue
        plain = {w: field.rows[Way(PLAIN, mode=w.mode)] for w in ours}
        least = min(plain[w].timing.median / m.timing.median for w, m in ours.items())
        lines.append(
            _goal(f"{precision}: {least:.2f}x the plain way", f">= {goal}x", least >= goal)
        )
        if precision == "fp32":
            same = min(m.same if m.same is not None else 0.0 for m in ours.values())
            text = f"{precision}: {100 * same:.3f}% of pixels in the same class"
            lines.append(_goal(text, f">= {100 * SAME_CLASSES}%", same >= SAME_CLASSES))
        else:
            lost = max(plain[w].psnr - m.psnr for w, m in ours.items())
            text = f"{precision}: {lost:.4f} dB lost"
            lines.append(_goal(text, f"<= {DECIBELS_LOST} dB", lost <= DECIBELS_LOST))
    return lines


def _goal(text: str, goal: str, met: bool) -> str:
    return f"{text} (goal {goal}): {'met' if met else 'NOT met'}."


def table_2(field: Field) -> str:
    """Ours against the original with the same layout, strips and precision."""
    header = ["precision", "classes by", "ours s", "original s", "times", "GMACs", "times / GMACs"]
    rows, worst = [], 0.0
    for way, found in field.rows.items():
        original = field.rows.get(Way(FAST_ORIGINAL, way.precision))
        if way.kind != OURS or original is None:
            continue
        times = found.timing.median / original.timing.median
        macs = found.gmacs / original.gmacs
        worst = max(worst, times / macs)
        seconds = [found.timing.text(), original.timing.text()]
        numbers = [f"{times:.3f}", f"{macs:.3f}", f"{times / macs:.3f}"]
        rows.append([way.precision, way.mode or "-", *seconds, *numbers])
    if not rows:
        return (
            f"{_title(field)}\n\nLeft out: {field.missing.get('original', 'nothing to compare')}."
        )
    goal = _goal(f"At most {worst:.3f}", f"<= {TIMES_PER_MACS}", worst <= TIMES_PER_MACS)
    return "\n\n".join([_title(field), markdown(header, rows), goal])

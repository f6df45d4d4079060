"""The tables of the training benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from _measure import MIB, Timing, markdown
from _training_ways import CROP, SCALE, WAYS
from plain_training import BATCH, PARTS

GOALS = {("fsrcnn", "1"): 3.0, ("carn", "1"): 2.0}
"""How many times as fast as the plain loop ours should be at least."""


def tables(facts: dict[str, Any]) -> str:
    """The whole report."""
    machine = facts["machine"]
    heading = (
        f"Stages of M = 2 at x4, batch {BATCH}, LR crops of {CROP // SCALE} x {CROP // SCALE}, "
        f"{facts['pictures']}. {machine['processor']}, {machine['threads']} threads, "
        f"torch {machine['torch']}, load {machine['load_before']} at the start. Medians of "
        f"{facts['rounds']} turn{'s' if facts['rounds'] > 1 else ''} of {facts['block']} steps; "
        "the least and the most in brackets."
    )
    trial = ["A quick trial: the numbers mean nothing."] if facts["quick"] else []
    rows = facts["rows"]
    return "\n\n".join(
        [
            "# Training",
            heading,
            *trial,
            "## Table 1: iterations per second",
            speed_table(rows),
            *goals(rows),
            "## Table 2: the loss on held-out crops, all pixels, fp32",
            loss_table(rows, facts["steps"]),
            "## Table 3: where a step's time goes, milliseconds",
            parts_table(rows),
            products(rows),
        ]
    )


def _rate(seconds: Sequence[float]) -> Timing:
    return Timing(tuple(1 / s for s in seconds))


def _beside_plain(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> float:
    plain = next(
        r
        for r in rows
        if r["way"] == "plain" and all(r[key] == row[key] for key in ("backbone", "stage"))
    )
    return _rate(row["seconds"]).median / _rate(plain["seconds"]).median


def speed_table(rows: Sequence[dict[str, Any]]) -> str:
    """Iterations per second, and how many times the plain loop's."""
    body = [
        [
            f"{r['backbone']}, stage {r['stage']}", r["way"], _rate(r["seconds"]).text(),
            f"{_beside_plain(rows, r):.2f}", f"{r['peak'] / MIB:.0f}",
        ]
        for r in rows
    ]  # fmt: skip
    header = ["stage", "way", "iterations/s", "times the plain loop's", "peak memory MiB"]
    return markdown(header, body)


def goals(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each goal whose stage was measured."""
    lines = []
    for row in rows:
        goal = GOALS.get((row["backbone"], row["stage"]))
        if goal is not None and row["way"] == "ours":
            times = _beside_plain(rows, row)
            lines.append(
                f"{row['backbone']}, stage {row['stage']}: {times:.2f}x the plain loop "
                f"(goal >= {goal:g}x): {'met' if times >= goal else 'NOT met'}."
            )
    return lines


def loss_table(rows: Sequence[dict[str, Any]], steps: int) -> str:
    """The loss before and after the same steps, side by side."""
    body = []
    for row in rows:
        if row["way"] == "plain":
            same = [r for r in rows if all(r[k] == row[k] for k in ("backbone", "stage"))]
            name = f"{row['backbone']}, stage {row['stage']}"
            losses = [f"{r['loss']:.5g}" for r in same]
            body.append([name, f"{row['loss_at_start']:.5g}", *losses])
    return markdown(["stage", "at the start", *(f"{w}, {steps} steps" for w in WAYS)], body)


def parts_table(rows: Sequence[dict[str, Any]]) -> str:
    """Median time of a step's parts, and its arithmetic beside matrix products."""
    body = [
        [
            f"{r['backbone']}, stage {r['stage']}", r["way"],
            *(f"{1000 * r['parts'][part]:.1f}" for part in PARTS),
            f"{2 * r['gmacs']:.1f}", f"{100 * r['matrix_share']:.0f}%",
        ]
        for r in rows
    ]  # fmt: skip
    return markdown(["stage", "way", *PARTS, "GFLOPs", "of matrix rate"], body)


def products(rows: Sequence[dict[str, Any]]) -> str:
    """The machine's rate, for which products of matrices took turns with the ways."""
    rates = [
        f"{precision} {2 * statistics.median(r['rates'][precision] for r in rows):.0f}"
        for precision in ("bf16", "fp32")
    ]
    return f"Matrix products, in the same rounds: {', '.join(rates)} GFLOP/s."

"""``pcsr models``: the released models, and what each is best for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from pcsr_lightning.cli.command import program, run_command

_FOOT = """
time: of the default model's, for the same picture and scale at k = 0, on one
processor core. At scales that a model was not trained for, bicubic may be
better. A name goes to --model, or to model= of evaluate."""

_FLOOR_SCALES, _FLOOR_SIDE = (1.5, 2.0, 3.0, 4.0, 8.0), 100
_FLOORS_FOOT = """
All light with the classifier, as a share of all heavy in multiply-adds. A
budget below this makes every pixel light. --fixed-class of the lightest costs
a little less, since no classifier runs."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=program("models"),
        description="List the released models: scales, time, and what each is best for.",
    )
    p.add_argument(
        "--json", action="store_true", help="print one JSON object per model, one a line"
    )
    p.add_argument(
        "--floors",
        action="store_true",
        help="print the lowest possible cost of each model at several scales instead",
    )
    p.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    return run_command(lambda: _floors() if args.floors else _run(args.json), args.debug)


def _run(as_json: bool) -> str:
    # Heavy libraries are imported here: --help and wrong usage answer at once.
    from pcsr_lightning.weights import describe_models

    models = describe_models()
    if as_json:
        return "\n".join(json.dumps(asdict(model)) for model in models)
    rows: list[tuple[str, ...]] = [("model", "scales", "time", "best for")]
    for model in models:
        time = "" if model.relative_time is None else f"{model.relative_time:.2f}"
        rows.append((model.name, model.scales_text, time, model.best_for))
    return "\n".join([*_table(rows, right={2}), _FOOT])


def _floors() -> str:
    from pcsr_lightning.inference.flops import model_macs
    from pcsr_lightning.networks import PCSR
    from pcsr_lightning.weights import describe_models, load

    rows: list[tuple[str, ...]] = [("model", *(f"x{scale:g}" for scale in _FLOOR_SCALES))]
    for described in describe_models():
        model = load(described.name)
        if isinstance(model, PCSR):  # an original model has one cost
            sides = [round(_FLOOR_SIDE * scale) for scale in _FLOOR_SCALES]
            macs = [
                model_macs(model).of_picture((_FLOOR_SIDE, _FLOOR_SIDE), (side, side))
                for side in sides
            ]
            shares = [f"{100 * each.all_light / each.all_heavy:.0f} %" for each in macs]
            rows.append((described.name, *shares))
    return "\n".join([*_table(rows, right=set(range(1, len(rows[0])))), _FLOORS_FOOT])


def _table(rows: Sequence[tuple[str, ...]], right: set[int]) -> list[str]:
    """Lines of columns as wide as their cells; those of ``right`` end alike."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1] = widths[-1] if len(widths) - 1 in right else 0
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

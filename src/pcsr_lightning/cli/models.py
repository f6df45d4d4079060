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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=program("models"),
        description="List the released models: scales, time, and what each is best for.",
    )
    p.add_argument(
        "--json", action="store_true", help="print one JSON object per model, one a line"
    )
    p.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    return run_command(lambda: _run(args.json), args.debug)


def _run(as_json: bool) -> str:
    # Heavy libraries are imported here: --help and wrong usage answer at once.
    from pcsr_lightning.weights import describe_models

    models = describe_models()
    if as_json:
        return "\n".join(json.dumps(asdict(model)) for model in models)
    rows = [("model", "scales", "time", "best for")]
    for model in models:
        time = "" if model.relative_time is None else f"{model.relative_time:.2f}"
        rows.append((model.name, model.scales_text, time, model.best_for))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{name:{widths[0]}}  {scales:{widths[1]}}  {time:>{widths[2]}}  {best}"
        for name, scales, time, best in rows
    ]
    return "\n".join([*(line.rstrip() for line in lines), _FOOT])

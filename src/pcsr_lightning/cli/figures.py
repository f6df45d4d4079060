"""``pcsr figures``: the paper's kinds of figures, for a picture of yours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pcsr_lightning.cli.command import run_command
from pcsr_lightning.cli.demo import picture_parser
from pcsr_lightning.errors import exit_at_once_on_signal


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = picture_parser(
        "figures",
        "Shrinks a photograph, upscales it x4 under many routings, and draws PSNR against FLOPs, "
        "the spread of difficulties, what refinement does, and the class map.",
    )
    p.add_argument(
        "--oracle",
        action="store_true",
        help="draw also what the best classifier would reach, and where this one errs",
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)

    def task() -> str:
        # Heavy libraries are imported here: --help and wrong usage answer at once.
        with exit_at_once_on_signal():
            from pcsr_lightning.evaluation.demo import load_with_classes, shipped_photograph
            from pcsr_lightning.evaluation.picture_figures import figures
            from pcsr_lightning.weights import DEFAULT_MODEL
        name = args.model or DEFAULT_MODEL
        model = load_with_classes(name)
        title = Path(name).stem if Path(name).exists() else name
        drawn = figures(args.picture or shipped_photograph(), model, title, args.out, args.oracle)
        return "\n".join(str(path) for path in drawn)

    return run_command(task, args.debug)

"""``pcsr demo``: a photograph upscaled x4 in five ways, compared and drawn."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pcsr_lightning.cli.command import name_argument, path_argument, program, run_command
from pcsr_lightning.errors import DONE, exit_at_once_on_signal


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return picture_parser(
        "demo", "Shrinks a photograph, upscales it x4 in five ways, and compares them."
    )


def picture_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A command that takes a picture and a model, and fills a folder called like the command."""
    p = argparse.ArgumentParser(prog=program(name), description=description)
    p.add_argument(
        "--out", type=path_argument, default=Path(name), help="folder (default: %(default)s)"
    )
    p.add_argument("--picture", type=path_argument, help="a picture file (default: a shipped one)")
    p.add_argument(
        "--model", type=name_argument, help="a name or a file (default: the released model)"
    )
    p.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)

    def task() -> int:
        # Heavy libraries are imported here: --help and wrong usage answer at once.
        with exit_at_once_on_signal():
            from rich.console import Console

            from pcsr_lightning.evaluation.demo import demo, load_with_classes, shipped_photograph
            from pcsr_lightning.weights import DEFAULT_MODEL
        model = load_with_classes(args.model or DEFAULT_MODEL)
        demo(args.picture or shipped_photograph(), model, args.out, Console())
        return DONE

    return run_command(task, args.debug)

"""``pcsr replay RUN``: trains a run again and checks that the weights are the same."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from pcsr_lightning.cli.command import path_argument, program, run_command
from pcsr_lightning.errors import exit_at_once_on_signal

_EPILOG = """\
The run folder says how: its config, its pictures and the model it started from. Pictures that
have changed are named before anything is trained.

exit codes: 0 the same weights, 1 other weights (and what differs) or an error (one line on
stderr), 2 wrong usage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=program("replay"),
        description="Train a run again from its recorded config into a new folder, and check that\n"
        "the weights are the same, bit for bit. Of a run with stage=all, each stage.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "run", metavar="RUN", type=path_argument, help="the folder of a finished training"
    )
    p.add_argument(
        "--out", metavar="DIR", type=path_argument, help="a new folder (default: replays/NAME-TIME)"
    )
    p.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def task() -> str:
        # Heavy libraries are imported here: --help and wrong usage answer at once.
        with exit_at_once_on_signal():
            from pcsr_lightning.training.replay import replay
        now = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
        # Not below outputs/, where stages look for the runs that they build on.
        output = args.out or Path("replays") / f"{args.run.resolve().name}-{now}"
        return "\n".join(replay(args.run, output))

    return run_command(task, args.debug)

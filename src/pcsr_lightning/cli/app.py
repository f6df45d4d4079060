"""``pcsr app``: the demo page."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pcsr_lightning.app.server import HOST, MAX_PIXELS, PORT, check_installed, serve
from pcsr_lightning.batch.values import whole_number
from pcsr_lightning.cli.command import name_argument, program, run_command


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=program("app"),
        description="Serve the demo page: drop a picture, move one slider, and see what it costs.",
        epilog="It runs until Ctrl-C (exit code 130) or SIGTERM (143). 1: error, 2: wrong usage.",
    )
    p.add_argument(
        "--host",
        default=HOST,
        help="address to listen on; 0.0.0.0 lets other machines in, unencrypted "
        "(default: %(default)s)",
    )
    p.add_argument(
        "--port", type=_port, help=f"(default: the first free one from {PORT} up)", metavar="N"
    )
    p.add_argument(
        "--max-pixels",
        type=_count,
        default=MAX_PIXELS,
        metavar="N",
        help="refuse to make pictures with more pixels (default: %(default)s, so 50 megapixels at "
        "x4); above 8 million a part is shown, and the whole made as a file; memory hardly grows "
        "with it, time and the file do",
    )
    p.add_argument(
        "--model",
        metavar="NAME_OR_FILE",
        type=name_argument,
        help="the model that is chosen at first; a file is offered besides the released ones",
    )
    p.add_argument("--threads", type=_count, metavar="N", help="processor threads (default: all)")
    p.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    return p


def _port(text: str) -> int:
    return whole_number(text, 1, 2**16 - 1, "from 1 to 65535")


def _count(text: str) -> int:
    return whole_number(text, 1, 2**40 - 1, "of at least 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until Ctrl-C or SIGTERM; returns the exit code."""
    args = parser().parse_args(argv)

    def task() -> int:
        check_installed()
        folder = Path(tempfile.mkdtemp(prefix="pcsr-app-"))
        try:
            serve(args.host, args.port, folder, args.model, args.max_pixels, args.threads)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return 0

    return run_command(task, args.debug)

"""Runs a command without Hydra: its result, one line for an error, and its exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pcsr_lightning.cli.startup import tune_process
from pcsr_lightning.errors import (
    DONE,
    EMPTY,
    FAILED,
    INTERRUPTED,
    TERMINATED,
    Terminated,
    interruptible,
    report_error,
)


def program(name: str) -> str:
    """A command as the user typed it, for usage lines: ``pcsr NAME``, or the module's."""
    as_script = sys.argv and Path(sys.argv[0]).stem == "pcsr"
    return f"pcsr {name}" if as_script else f"python -m pcsr_lightning.{name}"


def name_argument(text: str) -> str:
    """The type of an argument that names a file, a folder or a model, for argparse.

    Raises:
        ArgumentTypeError: it is empty, which would mean the current folder.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{EMPTY}: name a file or folder, or leave it out")
    return text


def path_argument(text: str) -> Path:
    """Likewise, as a path."""
    return Path(name_argument(text))


def run_command(task: Callable[[], str | int], debug: bool) -> int:
    """Runs ``task`` and prints what it returns, or one line on stderr for what stopped it.

    Ctrl-C and SIGTERM end a command alike: as an exception, so that whatever is half done is
    cleared away on the way out.

    Args:
        task: the command's work; returns the text to print, or an exit code of its own.
        debug: show the whole traceback of an error instead.

    Returns:
        The exit code: 0 done, 1 an error, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
    """
    tune_process()
    _replace_closed_streams()
    try:
        with interruptible():
            result = task()
            if isinstance(result, int):
                return result
            print(result)
            return DONE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Terminated:
        print("terminated", file=sys.stderr)
        return TERMINATED
    except BrokenPipeError:
        # Whoever read our output has left. Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # the last stop before the user
        report_error(error, debug)
        return FAILED


def _replace_closed_streams() -> None:
    """Opens the null device for standard streams that were closed when this process began.

    Else the next files that are opened would have their numbers, and whatever a library says on
    stderr would be written into a picture.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The lowest number that is free, which is this stream's.
            opened = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(opened, "w" if number else "r", closefd=False))

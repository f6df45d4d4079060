"""Runs a command without Hydra: its one line of result, one line for an error, and exit codes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from pcsr_lightning.errors import PCSRError

DONE, FAILED, INTERRUPTED = 0, 1, 130


def run_plain_door(task: Callable[[], str], debug: bool) -> int:
    """Prints what ``task`` returns, or what stopped it as one line on stderr.

    Args:
        task: the command's work.
        debug: show the whole trace of an error instead.

    Returns:
        The exit code: 0 done, 1 an error, 130 interrupted.
    """
    try:
        print(task())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # the last stop before the user
        if debug:
            traceback.print_exc()
        elif isinstance(error, PCSRError):
            print(f"error: {error}", file=sys.stderr)
        else:
            text = " ".join(str(error).split())[:300]
            print(f"error: {type(error).__name__}: {text} (--debug shows where)", file=sys.stderr)
        return FAILED
    return DONE

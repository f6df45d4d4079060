"""Runs a command without Hydra: its one line of result, one line for an error, and exit codes.

Ctrl-C and SIGTERM end a command alike: as an exception, so that whatever is half done is cleared
away on the way out.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pcsr_lightning.errors import PCSRError

DONE, FAILED, INTERRUPTED, TERMINATED = 0, 1, 130, 143
_REPEAT = 1.0
"""Seconds within which a second signal is the echo of the first: a terminal, torchrun and a
scheduler each pass one on, and it must not cut off what the first has set going."""


_came: type[BaseException] | None = None
"""What the last signal has raised, or will raise."""
_held = False
"""Whether signals wait, see :func:`uninterrupted`."""


class Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt no Exception, so that nothing takes it for a failure."""


def run_command(task: Callable[[], str], debug: bool) -> int:
    """Prints what ``task`` returns, or what stopped it as one line on stderr.

    Args:
        task: the command's work.
        debug: show the whole trace of an error instead.

    Returns:
        The exit code: 0 done, 1 an error, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
    """

    def told() -> int:
        print(task())
        return DONE

    return guarded(told, debug)


def guarded(task: Callable[[], int], debug: bool) -> int:
    """The exit code that ``task`` returns, or that of what stopped it, told as one line on stderr.

    Args:
        task: the command's work.
        debug: show the whole trace of an error instead.
    """
    _stand_in_for_closed_streams()
    try:
        with stoppable():
            return task()
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
        tell_error(error, debug)
        return FAILED


def _stand_in_for_closed_streams() -> None:
    """Nothing takes the place of standard streams that were closed when this process began.

    Else the next files that are opened would have their numbers, and whatever a library says on
    stderr would be written into a picture.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The lowest number that is free, which is this stream's.
            opened = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(opened, "w" if number else "r", closefd=False))


def tell_error(error: Exception, debug: bool) -> None:
    """An error as one line on stderr, or its whole trace."""
    if debug:
        traceback.print_exception(error)
    else:
        print(f"error: {one_line(error)}", file=sys.stderr)


def one_line(error: Exception) -> str:
    """What to tell the user of an error, ours or a surprise."""
    text = in_one_line(str(error))
    if isinstance(error, PCSRError):
        return text
    return f"{type(error).__name__}: {text[:300]} (--debug shows where)"


def in_one_line(text: str) -> str:
    """Text, such as a file's name, without line breaks or what would steer a terminal."""
    shown = (c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
    return "".join(shown)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it, Ctrl-C raises KeyboardInterrupt and SIGTERM raises :class:`Terminated`.

    Such an exception gets lost where it happens to meet a finalizer or a callback of a C library,
    which cannot pass it on: long work asks :func:`stop_if_told` now and then. Outside the main
    thread, where Python takes no handlers, nothing changes.
    """
    global _came
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first = 0.0

    def stop(signum: int, _: FrameType | None) -> None:
        global _came
        nonlocal first
        now = time.monotonic()
        if first and now - first < _REPEAT:
            return
        first = now
        _came = KeyboardInterrupt if signum == signal.SIGINT else Terminated
        if not _held:
            raise _came

    def lost(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt | Terminated):
            told(unraisable)

    told = sys.unraisablehook
    _came, sys.unraisablehook = None, lost
    try:
        with _handlers(stop):
            yield
    finally:
        _came, sys.unraisablehook = None, told


def stop_if_told() -> None:
    """Raises what a signal has raised before, if that has got lost.

    Raises:
        KeyboardInterrupt: Ctrl-C came.
        Terminated: SIGTERM came.
    """
    if _came is not None:
        raise _came


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within it, the signals of :func:`stoppable` wait; one that came is raised at its end.

    For the few instructions that take something and see to it that it is given back.

    Raises:
        KeyboardInterrupt: Ctrl-C came meanwhile.
        Terminated: SIGTERM came meanwhile.
    """
    global _held
    if _held or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _came
    _held = True
    try:
        yield
    finally:
        _held = False
    if _came is not before:  # what came before is on its way already
        stop_if_told()


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Within it, Ctrl-C and SIGTERM end the process on the spot, with the usual line and exit code.

    For imports: an exception that a signal raises in their midst can be swallowed there, and the
    command would run on. There is nothing to clean up yet.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(signum: int, _: FrameType | None) -> None:
        interrupt = signum == signal.SIGINT
        os.write(2, b"interrupted\n" if interrupt else b"terminated\n")
        os._exit(INTERRUPTED if interrupt else TERMINATED)

    with _handlers(leave):
        yield


@contextmanager
def killable() -> Iterator[None]:
    """Within it, Ctrl-C and SIGTERM kill the process as if it knew of no signals.

    For long waits inside a library, during which Python runs no handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handlers(signal.SIG_DFL):
        yield


@contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Whoever started us may have switched a signal off, as shells do with Ctrl-C for what runs in
    # the background.
    numbers = [number for number, old in before.items() if old is not signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in numbers:
            # None: set by something else than Python, which alone could set it again.
            signal.signal(number, before[number] or signal.SIG_DFL)

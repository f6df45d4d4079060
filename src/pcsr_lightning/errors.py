"""The errors a user is meant to read, how a command reports them, and what Ctrl-C and SIGTERM do.

A message says what was wrong, what was expected and what to do, in one line. Nothing here knows of
PyTorch or of a command line, so every part of the library may use it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

DONE, FAILED, INTERRUPTED, TERMINATED = 0, 1, 130, 143
"""Exit codes: success, an error, Ctrl-C, SIGTERM."""


class PCSRError(Exception):
    """An error whose message is meant for the user.

    Commands print such a message on its own, without a traceback.
    """


class DataError(PCSRError):
    """Training or validation data is missing, unusable, or cannot be fetched or cached."""


class ConfigError(PCSRError):
    """A setting is unknown, out of range, or at odds with another one."""


class ModelFileError(PCSRError):
    """A model file is missing, unreadable, or not one of this library's."""


class PictureError(PCSRError):
    """A picture file cannot be read or written."""


class TrainingError(PCSRError):
    """A training ended without a result."""


class Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt no Exception, so that nothing takes it for a failure."""


# Empty paths.

EMPTY = "is empty; perhaps a variable of the shell is not set"


def check_path(setting: str, path: object, example: str) -> None:
    """Refuses an empty path, which would mean the current folder.

    Args:
        setting: what the path is given as, ``data.root`` say.
        path: the path; what is no text, ``None`` say, is let through.
        example: of what to write instead, ``DIR`` say.

    Raises:
        ConfigError: it is empty or blank.
    """
    if isinstance(path, str) and not path.strip():
        raise ConfigError(f"{setting} {EMPTY}: write {setting}={example}, or leave it out")


# Errors in one line.


def report_error(error: Exception, debug: bool = False) -> None:
    """Prints an error as one line on stderr, or with ``debug`` its whole traceback."""
    if debug:
        import traceback  # here: it would slow down the start of every command

        traceback.print_exception(error)
    else:
        print(f"error: {error_line(error)}", file=sys.stderr)


def error_line(error: Exception) -> str:
    """An error in one line; for one that is no :class:`PCSRError`, with its type."""
    text = single_line(str(error))
    if isinstance(error, PCSRError):
        return text
    return f"{type(error).__name__}: {text[:300]} (--debug shows where)"


def single_line(text: str) -> str:
    """Text, such as a file's name, without line breaks or what would steer a terminal."""
    shown = (c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
    return "".join(shown)


def shortened(error: Exception, most: int = 600) -> str:
    """An error in one line of limited length; parts of it may come from a file."""
    text = single_line(str(error)[: 2 * most])
    return text if len(text) <= most else f"{text[:most]}..."


@contextmanager
def exit_on_error(debug: bool = False) -> Iterator[None]:
    """Ends the process with one line on stderr for a :class:`PCSRError` (1) and Ctrl-C (130).

    With ``debug`` both are raised on, with their tracebacks.
    """
    try:
        yield
    except PCSRError as error:
        if debug:
            raise
        report_error(error)
        raise SystemExit(FAILED) from None
    except KeyboardInterrupt:
        if debug:
            raise
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


@contextmanager
def system_errors_in_one_line(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Makes a :class:`PCSRError` of what the system refuses: a full disk, a read-only folder.

    Args:
        folder: where the block writes; named where the system names no file.

    Raises:
        PCSRError: the system's reason, and the file.
    """
    try:
        yield
    except ConnectionError:  # of processes to each other, or to who reads the output
        raise
    except OSError as error:
        reason = error.strerror or single_line(str(error))[:300]
        raise PCSRError(f"{error.filename or folder}: {reason}") from error


# Ctrl-C and SIGTERM.

_REPEAT_S = 1.0
"""A second signal within this time is the echo of the first: a terminal, torchrun and a scheduler
each pass one on, and it must not cut off what the first has set going."""
_received: type[BaseException] | None = None
"""What the last signal has raised, or will raise."""
_held = False
"""Whether signals wait, see :func:`hold_interrupts`."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it, Ctrl-C raises KeyboardInterrupt and SIGTERM raises :class:`Terminated`.

    Such an exception is lost if it happens to meet a finalizer or a callback of a C library, which
    cannot pass it on: long work calls :func:`raise_if_interrupted` now and then. Outside the main
    thread, where Python takes no handlers, nothing changes.
    """
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first = 0.0

    def receive(signum: int, _: FrameType | None) -> None:
        global _received
        nonlocal first
        now = time.monotonic()
        if first and now - first < _REPEAT_S:
            return
        first = now
        _received = KeyboardInterrupt if signum == signal.SIGINT else Terminated
        if not _held:
            raise _received

    def ignore_lost(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt | Terminated):
            hook(unraisable)

    hook = sys.unraisablehook
    _received, sys.unraisablehook = None, ignore_lost
    try:
        with _handlers(receive):
            yield
    finally:
        _received, sys.unraisablehook = None, hook


def raise_if_interrupted() -> None:
    """Raises what a signal has raised before, in case that was lost.

    Raises:
        KeyboardInterrupt: Ctrl-C came.
        Terminated: SIGTERM came.
    """
    if _received is not None:
        raise _received


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Within it, the signals of :func:`interruptible` wait; one that came is raised at its end.

    For the few instructions that take something and see to it that it is given back.

    Raises:
        KeyboardInterrupt: Ctrl-C came meanwhile.
        Terminated: SIGTERM came meanwhile.
    """
    global _held
    if _held or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _received
    _held = True
    try:
        yield
    finally:
        _held = False
    if _received is not before:  # what came before is being raised already
        raise_if_interrupted()


@contextmanager
def exit_at_once_on_signal() -> Iterator[None]:
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
def default_signal_handlers() -> Iterator[None]:
    """Within it, Ctrl-C and SIGTERM kill the process as if it had no handlers.

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

"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LONGEST_NAME = 200  # bytes; file systems take 255, and the temporary name is longer


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """An empty file to read and write that takes the name ``path`` in the end.

    It lies beside ``path`` under a hidden name (see ``remove_halves``) until the block is left.
    What is there under ``path`` is at all times the old file or the new one, after a power cut too.
    If the block is left by an exception, Ctrl-C included, the file is removed.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f"{_beginning(path)}{os.getpid()}-{secrets.token_hex(3)}.tmp")
    try:
        with temporary.open("x+b") as file:
            _mark_as_in_work(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file under another name beside it first, then renames it.

    What is there under ``path`` is at all times the old file or the new one, after a power cut too.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    with whole_file(path) as file:
        file.write(data)


def remove_halves(path: Path) -> None:
    """Removes what killed processes have left of attempts to write ``path``.

    Attempts that still go on, here or in another process of this machine, are left alone.
    """
    for half in path.parent.glob(f"{escape(_beginning(path))}*.tmp"):
        _remove_half(half)


def remove_all_halves(folder: Path) -> None:
    """:func:`remove_halves` of all that killed processes wrote in a folder, if there is one."""
    for half in folder.glob(".*.tmp"):
        # with the process's id, as :func:`whole_file` names them
        if re.fullmatch(r"\..+\.\d+(-[0-9a-f]+)?\.tmp", half.name):
            _remove_half(half)


def _remove_half(half: Path) -> None:
    with suppress(FileNotFoundError):  # another process was faster
        if not _in_work(half):
            half.unlink()


def _beginning(path: Path) -> str:
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = os.fsdecode(os.fsencode(name)[:_LONGEST_NAME])
    return f".{name}."


def _mark_as_in_work(file: BinaryIO) -> None:
    """A lock, which ends with the process however that ends."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _in_work(half: Path) -> bool:
    if fcntl is None:
        return False
    with half.open("rb") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def _sync_folder(folder: Path) -> None:
    """Makes the new name last through a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""Files that are written completely or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO

from pcsr_lightning.errors import PCSRError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LONGEST_NAME = 200  # bytes; file systems take 255, and the temporary name is longer


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """An empty file to read and write that is renamed to ``path`` when the block is left.

    Until then it lies beside ``path`` under a hidden name, locked; a killed process leaves it
    there unlocked, see :func:`remove_stale_temporaries`. Under ``path`` there is at all times the
    old file or the new one, after a power cut too. If the block is left by an exception, Ctrl-C
    included, the temporary is removed. A symbolic link stays one: what it leads to is replaced,
    and lies in another folder, then. The old file's permissions stay.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    path = link_target(path)
    if os.path.islink(path):  # noqa: PTH114
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}-{secrets.token_hex(3)}.tmp")
    try:
        with temporary.open("x+b") as file:
            with suppress(OSError):  # a file system without locks
                lock_file(file.fileno())
            with suppress(FileNotFoundError, PermissionError):  # or a file system without them
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def link_target(path: Path) -> Path:
    """The file that is written under a name: where its symbolic links lead, if it is one.

    Links that lead in a circle are given back.
    """
    # Not Path.is_symlink, which raises for a name that is too long.
    return Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114


def atomic_write(path: Path, data: bytes) -> None:
    """Writes a file as :func:`atomic_writer` does.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    with atomic_writer(path) as file:
        file.write(data)


def default_cache_folder() -> Path:
    """`$XDG_CACHE_HOME/pcsr_lightning`, or `~/.cache/pcsr_lightning`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcsr_lightning"


def check_writable(path: Path, error: type[PCSRError]) -> None:
    """Refuses a path at which no file can be written, before any work is done.

    Raises:
        error: it is a folder, or its own folder is missing, a file or read-only.
    """
    folder = link_target(path).parent
    if path.is_dir():
        raise error(f"{path}: is a folder; name the file to write")
    if folder.is_file():
        raise error(f"{path}: {folder} is a file, not a folder")
    if not folder.is_dir():
        raise error(f"{path}: the folder {folder} does not exist; make it with: mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise error(f"{path}: no permission to write into the folder {folder}")


def remove_stale_temporaries(path: Path) -> None:
    """Removes the temporaries of ``path`` that killed processes have left.

    Those that are still being written, here or in another process, are left alone.
    """
    path = link_target(path)
    for temporary in path.parent.glob(f"{escape(_prefix(path))}*.tmp"):
        _remove_if_stale(temporary)


def remove_all_stale_temporaries(folder: Path) -> None:
    """:func:`remove_stale_temporaries` of every file in a folder, if there is such a folder."""
    for temporary in folder.glob(".*.tmp"):
        # with the process's id, as :func:`atomic_writer` names them
        if re.fullmatch(r"\..+\.\d+(-[0-9a-f]+)?\.tmp", temporary.name):
            _remove_if_stale(temporary)


def lock_file(descriptor: int) -> bool:
    """Locks an open file until it is closed or its process ends; ``False`` if another holds it.

    For files that `filelock` cannot lock: it opens a file of its own, so it can neither lock a
    temporary that is being written nor hand a lock down to a child process.

    Raises:
        OSError: the file system has no locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_if_stale(temporary: Path) -> None:
    # Another process was faster, or its permissions, the old file's, keep us out.
    with suppress(FileNotFoundError, PermissionError):
        if not _is_being_written(temporary):
            temporary.unlink()


def _is_being_written(temporary: Path) -> bool:
    with temporary.open("rb") as file:
        try:
            return not lock_file(file.fileno())
        except OSError:
            return False


def _prefix(path: Path) -> str:
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = os.fsdecode(os.fsencode(name)[:_LONGEST_NAME])
    return f".{name}."


def _sync_folder(folder: Path) -> None:
    """Makes the new name last through a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""One process at a time works on an output: claims that die with their process.

A claim is a small hidden file beside the output, locked with flock while its owner is at work. The
lock, not the file, says that somebody is there: a killed process's lock is gone with it, whatever
it left lying about. Between machines this holds where the shared file system passes locks on (NFS
since version 4 or with lockd, Lustre mounted with `flock`, CephFS, GPFS); where it has none at all,
a claim says so, and its user may then do only what nobody else will touch.
"""

from __future__ import annotations

import errno
import hashlib
import os
from enum import Enum
from pathlib import Path
from types import TracebackType

from pcsr_lightning.errors import hold_interrupts

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_BUSY = {errno.EAGAIN, errno.EACCES}
_ATTEMPTS = 100


class Taken(Enum):
    """Why there is no claim to be had."""

    BUSY = "another process is at work on it"
    FAILED = "another process of the same run has failed on it"
    NO_LOCKS = "this file system has no locks"


class Claim:
    """The right to write one output. Use it as a context, which gives it back.

    Args:
        path: the claim's file.
        descriptor: open and locked.
        run: the run's name.
    """

    def __init__(self, path: Path, descriptor: int, run: str) -> None:
        self._path, self._descriptor, self._run = path, descriptor, run
        self._failed = False

    @classmethod
    def take(cls, target: Path, run: str) -> Claim | Taken:
        """Claims an output, at once or not at all.

        Args:
            target: the output.
            run: a name that processes of one run share, and no other run has.

        Raises:
            OSError: the claim's file cannot be made: no such folder, no permission, a full disk.
        """
        if fcntl is None:
            return Taken.NO_LOCKS
        path = claim_file(target)
        for _ in range(_ATTEMPTS):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                locked = _lock(descriptor)
                if locked is None and not _is_at(descriptor, path):
                    # Its last owner has removed it between our opening and our locking it.
                    os.close(descriptor)
                    continue
                if locked is None and os.pread(descriptor, 100, 0) == f"failed {run}".encode():
                    locked = Taken.FAILED
            except BaseException:
                os.close(descriptor)
                raise
            if locked is not None:
                os.close(descriptor)
                if locked is Taken.NO_LOCKS:
                    path.unlink(missing_ok=True)
                return locked
            return cls(path, descriptor, run)
        return Taken.BUSY

    def leave_failed(self) -> None:
        """Tells the other processes of this run not to try the same again: the file stays."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"failed {self._run}".encode(), 0)
        self._failed = True

    def release(self) -> None:
        """Gives it back."""
        try:
            if not self._failed:
                # Before the lock goes, or it might be the next owner's file.
                self._path.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with hold_interrupts():
            self.release()


def claim_file(target: Path) -> Path:
    """Where an output's claim lies. Hidden, so that no folder run takes it for a picture."""
    name = f".{target.name}.claim"
    if len(os.fsencode(name)) > 255:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]}.claim"
    return target.with_name(name)


def _lock(descriptor: int) -> Taken | None:
    """``None`` if it is ours now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return Taken.BUSY
        if error.errno in _NO_LOCKS:
            return Taken.NO_LOCKS
        raise
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)

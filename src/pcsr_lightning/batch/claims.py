"""One process at a time works on an output: claims that die with their process.

A claim is a small hidden file beside the output, locked while its owner is at work. The lock, not
the file, says that somebody is there: a killed process's lock is gone with it, whatever it left
lying about. Between machines this holds where the shared file system passes locks on (NFS since
version 4 or with lockd, Lustre mounted with `flock`, CephFS, GPFS); where it has none at all, a
claim says so, and its user may then do only what nobody else will touch.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from enum import Enum
from pathlib import Path

from filelock import FileLock, Timeout

from pcsr_lightning.atomic_io import link_target
from pcsr_lightning.errors import hold_interrupts

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


class Unclaimed(Enum):
    """Why an output could not be claimed."""

    BUSY = "another process is at work on it"
    FAILED = "another process of the same run has failed on it"
    NO_LOCKS = "this file system has no locks"


class Claim:
    """The right to write one output. Use it as a context, which gives it back.

    Args:
        lock: held.
        target: the output.
        run: the run's name.
    """

    def __init__(self, lock: FileLock, target: Path, run: str) -> None:
        self._lock, self._run = lock, run
        self._mark = failure_mark(target)

    @classmethod
    def take(cls, target: Path, run: str) -> Claim | Unclaimed:
        """Claims an output, at once or not at all.

        Args:
            target: the output.
            run: a name that processes of one run share, and no other run has.

        Raises:
            OSError: the claim's file cannot be made: no permission, a full disk.
        """
        if sys.platform == "win32":  # a locked file can be neither read nor removed there
            return Unclaimed.NO_LOCKS
        file = claim_file(target)
        lock = FileLock(file, blocking=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            # Also where its last owner has removed the file since filelock opened it.
            return Unclaimed.BUSY
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            file.unlink(missing_ok=True)
            return Unclaimed.NO_LOCKS
        claim = cls(lock, target, run)
        if claim.failed_in_this_run():
            claim.release()
            return Unclaimed.FAILED
        return claim

    def leave_failed(self) -> None:
        """Tells the other processes of this run, by a file, not to try the same again."""
        self._mark.write_text(self._run)

    def failed_in_this_run(self) -> bool:
        """Whether a process of this run has called :meth:`leave_failed`."""
        if self._mark.exists() and self._mark.read_text() == self._run:
            return True
        self._mark.unlink(missing_ok=True)  # an earlier run's
        return False

    def release(self) -> None:
        """Gives it back."""
        try:
            # Before the lock goes, or it might be the next owner's file.
            Path(self._lock.lock_file).unlink(missing_ok=True)
        finally:
            self._lock.release()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        with hold_interrupts():
            self.release()


def claim_file(target: Path) -> Path:
    """Where an output's claim lies. Hidden, so that no folder run takes it for a picture."""
    return _hidden(target, ".claim")


def failure_mark(target: Path) -> Path:
    """The file that holds the name of the run which has failed on an output."""
    return _hidden(target, ".failed")


def _hidden(target: Path, suffix: str) -> Path:
    target = link_target(target)
    name = f".{target.name}{suffix}"
    if len(os.fsencode(name)) > 255:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]}{suffix}"
    return target.with_name(name)

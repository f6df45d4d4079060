"""Processes that write into one folder divide the machine's cores between them.

Each holds a locked hidden file in the folder while it runs. The lock, not the file, says that the
process is alive; what a killed one left is removed by the next that looks.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import torch

from pcsr_lightning.atomic_io import link_target, lock_file
from pcsr_lightning.batch.inputs import STREAM
from pcsr_lightning.batch.outputs import Job
from pcsr_lightning.distributed import ProcessGroup, available_cores
from pcsr_lightning.errors import hold_interrupts

_SUFFIX = ".pcsr-at-work"
_INTERVAL = 1.0
"""Seconds between two looks at a folder, which may hold many thousand files."""


class SharedCores:
    """This process's part of the cores; see :func:`shared_cores`.

    Args:
        folder: where the processes meet; ``None`` if there is nothing to share.
        cores: of the machine, that this process may run on.
        host: this machine's name: others that share the folder have cores of their own.
    """

    def __init__(self, folder: Path | None, cores: int, host: str) -> None:
        self._folder, self._cores, self._host = folder, cores, host
        self._looked = -_INTERVAL

    def divide(self) -> None:
        """Sets the number of PyTorch's threads for the next picture."""
        now = time.monotonic()
        if self._folder is None or now - self._looked < _INTERVAL:
            return
        self._looked = now
        torch.set_num_threads(max(1, self._cores // max(1, self._processes(self._folder))))

    def _processes(self, folder: Path) -> int:
        alive = 0
        for path in folder.glob(f".{self._host}-*{_SUFFIX}"):
            with suppress(OSError):  # it has just ended, or the file system has no locks
                with path.open("rb") as file:
                    dead = lock_file(file.fileno())
                if dead:
                    path.unlink(missing_ok=True)
                alive += not dead
        return alive


@contextmanager
def shared_cores(
    jobs: Sequence[Job],
    threads: int | None,
    group: ProcessGroup,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[SharedCores]:
    """What divides the cores while the block runs.

    Args:
        jobs: their results' folder is where processes meet.
        threads: that the user asked for: nothing is divided then.
        group: torchrun sets ``OMP_NUM_THREADS`` to 1, unasked; a user's own setting counts.
        environment: where it is looked up.
    """
    host = "".join(c if c.isalnum() else "_" for c in socket.gethostname())
    asked = environment.get("OMP_NUM_THREADS")
    by_torchrun = group.launcher == "torchrun" and asked == "1"
    folder = _common_folder(jobs)
    if threads is not None or (asked is not None and not by_torchrun) or folder is None:
        yield SharedCores(None, 1, host)
        return
    before = torch.get_num_threads()
    cores = available_cores() if by_torchrun else before
    with hold_interrupts():
        mark = _mark(folder, host)
    try:
        yield SharedCores(None if mark is None else folder, cores, host)
    finally:
        torch.set_num_threads(before)
        if mark is not None:
            with hold_interrupts():
                Path(mark.name).unlink(missing_ok=True)
                mark.close()


def _mark(folder: Path, host: str) -> BinaryIO | None:
    """This process's locked file; ``None`` where none can be made: writing will say why."""
    path = folder / f".{host}-{os.getpid()}-{secrets.token_hex(3)}{_SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    except OSError:
        return None
    try:
        lock_file(file.fileno())
    except OSError:  # no locks here
        file.close()
        path.unlink(missing_ok=True)
        return None
    return file


def _common_folder(jobs: Sequence[Job]) -> Path | None:
    """The one that holds all results, if any lie in it itself: it is surely the run's own."""
    folders = {str(link_target(job.target).parent.absolute()) for job in jobs}
    if not folders or any(job.target == STREAM for job in jobs):
        return None
    common = os.path.commonpath(folders)
    return Path(common if common in folders else min(folders))

"""Processes that an evaluation starts itself: one a device, on this machine."""

from __future__ import annotations

import logging
import pickle
import queue
from collections.abc import Callable, Sequence
from logging.handlers import QueueHandler
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from torch import distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException, spawn

from pcsr_lightning.distributed import ProcessGroup
from pcsr_lightning.errors import PCSRError

T = TypeVar("T")

RESULT = "result.pickle"


def run_in_processes(
    devices: Sequence[torch.device],
    threads: int,
    work: Callable[[ProcessGroup, torch.device], T],
) -> T:
    """Does something in one fresh process a device.

    They are spawned, not forked, and never see the command line: what Hydra composed is composed
    once. What process 0 logs is logged here.

    Args:
        devices: of the processes.
        threads: of torch, in each of them.
        work: importable, or a ``functools.partial`` of what is; its result must be picklable.

    Returns:
        What process 0 made of it.

    Raises:
        PCSRError: what ``work`` raised; or a process was ended from outside.
        torch.multiprocessing.ProcessRaisedException: ``work`` raised something else.
    """
    with TemporaryDirectory() as folder:
        args = (Path(folder), tuple(devices), threads, work)
        try:
            # daemons: they end with this process, however it ends
            spawn(_work, args, nprocs=len(devices), daemon=True)  # type: ignore[no-untyped-call]
        except ProcessExitedException as error:
            raise PCSRError(
                f"devices={len(devices)}: {error}; if that was for want of memory, use fewer"
            ) from None
        # our own file, in a folder that only this user can write to
        records, result = pickle.loads((Path(folder) / RESULT).read_bytes())
    for record in records:
        logging.getLogger(record.name).handle(record)
    if isinstance(result, PCSRError):
        raise result
    value: T = result
    return value


def _work(
    rank: int,
    folder: Path,
    devices: tuple[torch.device, ...],
    threads: int,
    work: Callable[[ProcessGroup, torch.device], Any],
) -> None:
    """What a process does."""
    torch.set_num_threads(threads)
    if devices[rank].type == "cuda":
        torch.cuda.set_device(devices[rank])
    logged: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logging.getLogger().addHandler(QueueHandler(logged))
    size = len(devices)
    processes = ProcessGroup(rank, size, rank, size).connect(f"file://{folder}/meeting")
    result: Any
    try:
        result = work(processes, devices[rank])
    except PCSRError as error:  # of all processes alike
        result = error
    if rank == 0:
        records = [logged.get() for _ in range(logged.qsize())]
        # Not through a pipe: a long list of scores would fill it before anybody reads.
        (folder / RESULT).write_bytes(pickle.dumps((records, result)))
    dist.destroy_process_group()

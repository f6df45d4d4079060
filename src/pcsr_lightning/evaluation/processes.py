"""Several processes that share the work of one evaluation: who does what, and what all found.

Only small Python objects go between them, over gloo, whatever devices they compute on. Every
process calls the same methods in the same order; a failure in one is a failure of all.
"""

from __future__ import annotations

import atexit
import functools
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed as dist

from pcsr_lightning.distributed import launched
from pcsr_lightning.errors import ConfigError, PCSRError

T = TypeVar("T")

MEETING = timedelta(minutes=10)
"""How long processes wait for one another at the start."""
WORK = timedelta(days=7)
"""And once they work: a share of a large set takes its time, and a broken connection is noticed."""


@dataclass(frozen=True)
class Processes:
    """This process among those that share the work.

    Attributes:
        rank: 0 to ``size - 1``; process 0 prints and writes.
        size: how many there are.
        local_rank: the same within this machine: which of its devices is ours.
        local_size: how many there are on this machine.
        group: what they talk over; ``None`` for one process alone.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    group: dist.ProcessGroup | None = None

    def share(self, files: Sequence[Path]) -> list[Path]:
        """The files that are this process's to do, in their order.

        The largest goes to the first process, and each of the others to whoever has least so far.
        Bytes stand for the time that a picture takes.
        """
        if self.size == 1:
            return list(files)
        sizes = [file.stat().st_size for file in files]
        burdens = [0] * self.size
        own = []
        for i in sorted(range(len(files)), key=lambda i: (-sizes[i], i)):
            rank = burdens.index(min(burdens))
            burdens[rank] += sizes[i] + 1
            if rank == self.rank:
                own.append(i)
        return [files[i] for i in sorted(own)]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks; each process gets them all."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.group)
        return found

    def together(self, work: Callable[[], T]) -> T:
        """Does something in every process; where it fails in one, it fails in all.

        Returns:
            What this process made of it.

        Raises:
            PCSRError: the first that any process met, by rank.
            RuntimeError: another process met something else; the message has its trace.
        """
        if self.size == 1:
            return work()
        result: Any = None
        own: Exception | None = None
        failure: PCSRError | str | None = None
        try:
            result = work()
        except PCSRError as error:
            own, failure = error, error
        except Exception as error:  # whatever it is, the others must not wait for this process
            own, failure = error, traceback.format_exc()
        failures = [(rank, f) for rank, f in enumerate(self.gather(failure)) if f is not None]
        if not failures:
            done: T = result
            return done
        rank, first = failures[0]
        if rank == self.rank and own is not None:
            raise own
        if isinstance(first, PCSRError):
            raise first
        raise RuntimeError(f"process {rank} of {self.size} failed:\n{first}")


ALONE = Processes()


@functools.cache  # the jobs of a multirun meet once
def from_outside() -> Processes:
    """The processes that torchrun, srun or the like started; :data:`ALONE` without them.

    Raises:
        ConfigError: they do not know where to meet.
    """
    launch = launched()
    if launch is None or launch.size == 1:
        return ALONE
    address = _slurm_address() if launch.by == "srun" else "env://"
    if address == "env://" and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise ConfigError(
            f"{launch.size} processes were started from outside, but not by torchrun or srun: "
            "name the place where they meet with MASTER_ADDR and MASTER_PORT"
        )
    found = meet(address, launch.rank, launch.size, launch.local_rank, launch.local_size)
    atexit.register(dist.destroy_process_group)  # its threads must not outlive the interpreter
    return found


def meet(address: str, rank: int, size: int, local_rank: int, local_size: int) -> Processes:
    """Waits until all processes are there.

    Args:
        address: as ``torch.distributed.init_process_group`` takes it.
        rank: see :class:`Processes`; so the rest.
        size: likewise.
        local_rank: likewise.
        local_size: likewise.
    """
    dist.init_process_group("gloo", address, timeout=MEETING, rank=rank, world_size=size)
    group = dist.new_group(backend="gloo", timeout=WORK)
    return Processes(rank, size, local_rank, local_size, group)


def _slurm_address() -> str:
    # Takes a while to import, and is needed under SLURM alone.
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    env = os.environ
    nodes = env.get("SLURM_STEP_NODELIST") or env["SLURM_JOB_NODELIST"]
    host = env.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    # As Lightning does it: jobs on the same machines have ports of their own.
    port = env.get("MASTER_PORT") or str(15000 + int(env["SLURM_JOB_ID"][-4:]))
    return f"tcp://{host}:{port}"


def shared_threads(processes: Processes) -> int:
    """How many threads torch should have in each of the processes on a machine.

    Without ``OMP_NUM_THREADS`` each of them believes that the whole machine is its own.
    """
    threads = torch.get_num_threads()
    if "OMP_NUM_THREADS" in os.environ:
        return threads
    return max(1, threads // processes.local_size)

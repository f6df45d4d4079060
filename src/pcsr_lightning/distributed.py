"""Several processes of one command: which of them this one is, and how they work together.

torchrun, srun or MPI start the processes and describe them by environment variables. These are read
here and not by ``lightning.fabric``: to import it takes more than three seconds of every process,
its SLURM environment takes a batch script's own shell for a task, and its MPI environment needs
mpi4py. PyTorch too is imported only once processes connect.

Only small Python objects go between them, over gloo, whatever devices they compute on. Every
process calls the same methods in the same order; a failure in one is a failure of all.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pcsr_lightning.errors import ConfigError, PCSRError, default_signal_handlers

if TYPE_CHECKING:
    from torch import distributed as dist

T = TypeVar("T")

CONNECT_TIMEOUT = timedelta(minutes=10)
"""How long processes wait for one another at the start."""
WORK_TIMEOUT = timedelta(days=365)
"""And once they work: shares differ, and a broken connection is noticed in any case."""

_SPECIAL_STEP = 0xFFFFFFF0  # from here on SLURM numbers steps that are no srun of ours


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that were started together. The default is one process alone.

    Attributes:
        rank: 0 to ``size - 1``; process 0 prints and writes.
        size: how many there are.
        local_rank: the same within this machine: which of its devices is ours.
        local_size: how many there are on this machine.
        launcher: what started them; ``"other"`` for MPI and whatever sets ``WORLD_SIZE`` and
            ``RANK``, ``None`` for a process started by itself or by Lightning.
        group: what they communicate over; ``None`` until :meth:`connect`.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: Literal["torchrun", "srun", "other"] | None = None
    group: dist.ProcessGroup | None = None

    def connect(self, address: str) -> ProcessGroup:
        """Waits until all processes are there.

        Args:
            address: where they meet, as ``torch.distributed.init_process_group`` takes it.

        Returns:
            The same group, connected.

        Raises:
            ConfigError: they do not find each other.
        """
        from torch import distributed as dist

        try:
            with default_signal_handlers():
                dist.init_process_group(
                    "gloo", address, timeout=CONNECT_TIMEOUT, rank=self.rank, world_size=self.size
                )
                group = dist.new_group(backend="gloo", timeout=WORK_TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"the {self.size} processes of this run do not find each other "
                f"({' '.join(str(error).split())[:200]})"
            ) from error
        return replace(self, group=group)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks; each process gets them all."""
        if self.size == 1:
            return [value]
        from torch import distributed as dist

        found: list[Any] = [None] * self.size
        with default_signal_handlers():
            dist.all_gather_object(found, value, group=self.group)
        return found

    def broadcast(self, value: T) -> T:
        """The value of the first process, in all of them."""
        first: Any = self.gather(value if self.rank == 0 else None)[0]
        found: T = first
        return found

    def run_collectively(self, work: Callable[[], T]) -> T:
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

    def share(self, files: Sequence[Path]) -> list[Path]:
        """The files that are this process's to do, in their order.

        The largest goes to the first process, and each of the others to whoever has least so far.
        Bytes stand for the time that a picture takes.
        """
        if self.size == 1:
            return list(files)
        sizes = [file.stat().st_size for file in files]
        loads = [0] * self.size
        own = []
        for i in sorted(range(len(files)), key=lambda i: (-sizes[i], i)):
            rank = loads.index(min(loads))
            loads[rank] += sizes[i] + 1
            if rank == self.rank:
                own.append(i)
        return [files[i] for i in sorted(own)]

    def threads(self) -> int:
        """How many threads torch should have in each of the processes on this machine.

        Without ``OMP_NUM_THREADS`` each of them believes that the whole machine is its own.
        """
        import torch

        threads = torch.get_num_threads()
        if "OMP_NUM_THREADS" in os.environ:
            return threads
        return max(1, threads // self.local_size)


ALONE = ProcessGroup()


def launched_group(environment: Mapping[str, str] = os.environ) -> ProcessGroup:
    """This process as its launcher describes it, not connected; :data:`ALONE` without a launcher.

    Raises:
        ConfigError: a variable that is needed is missing, or is not a number.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        return ProcessGroup(
            _number(environment, "RANK"),
            _number(environment, "WORLD_SIZE", 1),
            _number(environment, "LOCAL_RANK"),
            _number(environment, "LOCAL_WORLD_SIZE", 1),
            "torchrun",
        )
    if _in_slurm_step(environment):
        return _srun_group(environment)
    return _other_group(environment)


def connected_group() -> ProcessGroup:
    """The processes that torchrun, srun or the like started, connected on the first call.

    Raises:
        ConfigError: they do not know where to meet, or do not find each other.
    """
    group = launched_group()
    return group if group.size == 1 else _connect_once(group)


@functools.cache  # the jobs of a multirun connect once
def _connect_once(group: ProcessGroup) -> ProcessGroup:
    if group.launcher == "srun":
        address = _slurm_address()
    elif {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        address = "env://"
    else:
        raise ConfigError(
            f"{group.size} processes were started from outside, but not by torchrun or srun: "
            "name the place where they meet with MASTER_ADDR and MASTER_PORT"
        )
    connected = group.connect(address)
    from torch import distributed as dist

    atexit.register(dist.destroy_process_group)  # its threads must not outlive the interpreter
    return connected


def _slurm_address() -> str:
    # Slow to import, and needed under SLURM alone.
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    env = os.environ
    nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST", "127.0.0.1")
    host = env.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    # As Lightning does it: jobs on the same machines have ports of their own.
    port = env.get("MASTER_PORT") or str(15000 + int(env["SLURM_JOB_ID"][-4:]))
    return f"tcp://{host}:{port}"


def tasks_per_node(text: str) -> list[int]:
    """SLURM's ``2(x3),1`` as ``[2, 2, 2, 1]``."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in parts for _ in range(int(times or 1))]


def _in_slurm_step(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process, and not an interactive shell or the batch script."""
    shell = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    step = environment.get("SLURM_STEP_ID", "")
    known = "SLURM_JOB_ID" in environment and "SLURM_PROCID" in environment
    return known and not shell and step.isdecimal() and int(step) < _SPECIAL_STEP


def _srun_group(environment: Mapping[str, str]) -> ProcessGroup:
    # The step's own variable; the second is the job's, for a step over all of it the same.
    names = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    text = next((environment[name] for name in names if environment.get(name)), "")
    per_node, node = tasks_per_node(text), _number(environment, "SLURM_NODEID")
    if node >= len(per_node):
        raise ConfigError(
            f"{names[0]}={text!r} in the environment has nothing about machine {node}: start the "
            "processes with srun"
        )
    return ProcessGroup(
        _number(environment, "SLURM_PROCID"),
        sum(per_node),
        _number(environment, "SLURM_LOCALID"),
        per_node[node],
        "srun",
    )


_OTHERS = (
    (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
)


def _other_group(environment: Mapping[str, str]) -> ProcessGroup:
    for rank, size, local_rank, local_size in _OTHERS:
        if size in environment and rank in environment and _number(environment, size, 1) > 1:
            filled = {local_rank: "0", local_size: "1", **environment}
            return ProcessGroup(
                _number(environment, rank),
                _number(environment, size),
                _number(filled, local_rank),
                _number(filled, local_size, 1),
                "other",
            )
    return ALONE


def _number(environment: Mapping[str, str], name: str, least: int = 0) -> int:
    text = environment.get(name, "")
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(
            f"{name}={text!r} in the environment: expected a whole number of at least {least}"
        )
    return int(text)


def available_cores() -> int:
    """Of the machine, that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""Several processes on one batch, under torchrun or SLURM, through Lightning Fabric.

Who works on which picture is settled by claims on the disk, so a process that is slow or has the
large pictures holds nobody up, and one that is killed leaves nothing locked. Fabric says who we
are, hands the plan of the first process to all (so that all mean the same by "was there before")
and collects what each has done. The last is needed because torchrun ends all processes when one of
them ends with an error: nobody leaves before everybody is done, and it is the first process that
tells of errors and ends with exit code 1 for all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from pcsr_lightning.distributed import Launch, launched
from pcsr_lightning.errors import (
    DONE,
    ConfigError,
    PCSRError,
    default_signal_handlers,
    exit_at_once_on_signal,
)

if TYPE_CHECKING:
    from lightning.fabric import Fabric

T = TypeVar("T")

_MEETING = timedelta(minutes=10)
"""How long processes wait for each other at the start."""
_WORK = timedelta(days=365)
"""How long those that are done wait for the others."""


class Team:
    """The processes of a run. This one stands for a run of a single process.

    Attributes:
        rank: this process's number.
        world: how many there are.
        local_rank: its number on this machine, for the choice of a GPU.
    """

    rank = 0
    world = 1
    local_rank = 0

    def agree(self, task: Callable[[], T]) -> T:
        """What ``task`` gives in the first process, run in all.

        Raises:
            PCSRError: it failed somewhere. Told once: the other processes just end.
        """
        return task()

    def gather(self, mine: T) -> list[T]:
        """What every process has, in order of rank, once all have come here."""
        return [mine]


class FabricTeam(Team):
    """Processes that were started together.

    Args:
        launch: by torchrun or srun.

    Raises:
        ConfigError: they do not find each other, or machines have different numbers of them.
    """

    def __init__(self, launch: Launch) -> None:
        with exit_at_once_on_signal():
            import torch
            from lightning.fabric import Fabric
            from lightning.fabric.strategies.ddp import DDPStrategy
        if launch.size != launch.nodes * launch.local_size:
            raise ConfigError(
                f"{launch.size} processes on {launch.nodes} machines, {launch.local_size} on this "
                "one: start the same number on each"
            )
        for name in ("lightning.fabric", "lightning.pytorch"):
            logging.getLogger(name).setLevel(logging.WARNING)

        # Pictures stay with their process; only a few words pass between them, for which gloo does.
        fabric: Fabric = Fabric(
            accelerator="cpu",
            devices=launch.local_size,
            num_nodes=launch.nodes,
            strategy=DDPStrategy(process_group_backend="gloo", timeout=_MEETING),
        )
        try:
            with default_signal_handlers():
                fabric.launch()
                group = torch.distributed.new_group(backend="gloo", timeout=_WORK)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"the {launch.size} processes of this run do not find each other "
                f"({' '.join(str(error).split())[:200]})"
            ) from error
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.local_rank = fabric.local_rank
        self._fabric, self._group = fabric, group

    def agree(self, task: Callable[[], T]) -> T:
        """See :meth:`Team.agree`."""
        result: T | None = None
        failure: PCSRError | None = None
        try:
            result = task()
        except PCSRError as error:
            failure = error
        failures = self.gather(failure)
        told = next((error for error in failures if error is not None), None)
        if told is not None:
            if self.rank == 0:
                raise told
            raise SystemExit(DONE)
        with default_signal_handlers():
            return self._fabric.broadcast(result)  # type: ignore[return-value]

    def gather(self, mine: T) -> list[T]:
        """See :meth:`Team.gather`."""
        import torch

        everybody: list[T | None] = [None] * self.world
        with default_signal_handlers():
            torch.distributed.all_gather_object(everybody, mine, group=self._group)
        return everybody  # type: ignore[return-value]


def find_team() -> Team:
    """The team that this process was started in.

    Raises:
        ConfigError: the launcher's variables make no sense, or processes do not find each other.
    """
    launch = launched()
    # Fabric knows nothing of other launchers; their processes share the folder by claims alone.
    if launch is None or launch.by == "other" or launch.size == 1:
        return Team()
    return FabricTeam(launch)

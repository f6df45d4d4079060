"""Which of several processes this one is, as torchrun, srun or the like tell by the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pcsr_lightning.errors import ConfigError

_SPECIAL_STEP = 0xFFFFFFF0  # from here on SLURM numbers steps that are no srun of ours


@dataclass(frozen=True)
class Launch:
    """This process among those that were started together.

    Attributes:
        by: who started them; ``"other"`` for MPI and whatever sets ``WORLD_SIZE`` and ``RANK``.
        rank: 0 to ``size - 1``.
        size: how many there are.
        local_rank: the same within this machine.
        local_size: how many there are on this machine.
        nodes: on how many machines they are; 1 where the launcher does not tell.
    """

    by: Literal["torchrun", "srun", "other"]
    rank: int
    size: int
    local_rank: int = 0
    local_size: int = 1
    nodes: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Launch | None:
        """Reads a launcher's variables; ``None`` where no launcher started this process.

        Lightning starts processes itself too; for these it is ``None``.

        Raises:
            ConfigError: a variable that is needed is missing, or is not a number.
        """
        if "TORCHELASTIC_RUN_ID" in environment:
            return _of_torchrun(environment)
        if _in_slurm_step(environment):
            return _of_srun(environment)
        return _of_another(environment)


def launched() -> Launch | None:
    """:meth:`Launch.of` this process's own environment."""
    return Launch.of(os.environ)


def outside_rank() -> int | None:
    """The number of this process among those that torchrun, srun or the like have started.

    ``None`` where nothing of the kind did.
    """
    launch = launched()
    return None if launch is None else launch.rank


def tasks_per_node(text: str) -> list[int]:
    """SLURM's ``2(x3),1`` as ``[2, 2, 2, 1]``."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in parts for _ in range(int(times or 1))]


def _of_torchrun(environment: Mapping[str, str]) -> Launch:
    size = _number(environment, "WORLD_SIZE", 1)
    local_size = _number(environment, "LOCAL_WORLD_SIZE", 1)
    return Launch(
        "torchrun",
        _number(environment, "RANK"),
        size,
        _number(environment, "LOCAL_RANK"),
        local_size,
        -(-size // local_size),
    )


def _in_slurm_step(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process, and not an interactive shell or the batch script."""
    shell = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    step = environment.get("SLURM_STEP_ID", "")
    known = "SLURM_JOB_ID" in environment and "SLURM_PROCID" in environment
    return known and not shell and step.isdecimal() and int(step) < _SPECIAL_STEP


def _of_srun(environment: Mapping[str, str]) -> Launch:
    # srun's own words; the second is the job's, for a step over all of it the same.
    names = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    told = next((environment[name] for name in names if environment.get(name)), "")
    per_node, node = tasks_per_node(told), _number(environment, "SLURM_NODEID")
    if node >= len(per_node):
        raise ConfigError(
            f"{names[0]}={told!r} in the environment tells nothing of machine {node}: start the "
            "processes with srun"
        )
    return Launch(
        "srun",
        _number(environment, "SLURM_PROCID"),
        sum(per_node),
        _number(environment, "SLURM_LOCALID"),
        per_node[node],
        len(per_node),
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


def _of_another(environment: Mapping[str, str]) -> Launch | None:
    for rank, size, local_rank, local_size in _OTHERS:
        if size in environment and rank in environment and _number(environment, size, 1) > 1:
            all_words = {local_rank: "0", local_size: "1", **environment}
            return Launch(
                "other",
                _number(environment, rank),
                _number(environment, size),
                _number(all_words, local_rank),
                _number(all_words, local_size, 1),
            )
    return None


def _number(environment: Mapping[str, str], name: str, least: int = 0) -> int:
    text = environment.get(name, "")
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(
            f"{name}={text!r} in the environment: expected a whole number of at least {least}"
        )
    return int(text)

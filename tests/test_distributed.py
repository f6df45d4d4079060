"""Who started this process, by the environments that launchers make."""

from __future__ import annotations

import pytest

from pcsr_lightning.distributed import ALONE, ProcessGroup, launched_group, tasks_per_node
from pcsr_lightning.errors import ConfigError

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x", "RANK": "4", "WORLD_SIZE": "6",
    "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3",
}  # fmt: skip
SRUN = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NODEID": "1", "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
}  # fmt: skip
MPI = {
    "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "group"),
    [
        ({}, ALONE),
        (TORCHRUN, ProcessGroup(4, 6, 1, 3, launcher="torchrun")),
        ({**TORCHRUN, **SRUN}, ProcessGroup(4, 6, 1, 3, launcher="torchrun")),
        (SRUN, ProcessGroup(5, 8, 1, 4, launcher="srun")),
        ({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "4,2"}, ProcessGroup(5, 6, 1, 2, launcher="srun")),
        # A batch script's own shell, where nobody has started the other tasks; one on a node.
        ({**SRUN, "SLURM_STEP_ID": "4294967291"}, ALONE),
        ({**SRUN, "SLURM_JOB_NAME": "interactive"}, ALONE),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, ALONE),
        (MPI, ProcessGroup(3, 4, 1, 2, launcher="other")),
        ({"RANK": "1", "WORLD_SIZE": "2"}, ProcessGroup(1, 2, launcher="other")),
        ({"RANK": "0", "WORLD_SIZE": "1"}, ALONE),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, ALONE),  # one that Lightning started
    ],
)
def test_who_was_started(environment: dict[str, str], group: ProcessGroup) -> None:
    assert launched_group(environment) == group


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({**TORCHRUN, "WORLD_SIZE": ""}, "WORLD_SIZE=''"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE='0'.*at least 1"),
        ({**SRUN, "SLURM_LOCALID": "many"}, "SLURM_LOCALID='many'"),
        ({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "4"}, "has nothing about machine 1"),
    ],
)
def test_a_launch_that_makes_no_sense(wrong: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        launched_group(wrong)


def test_tasks_per_node() -> None:
    assert tasks_per_node("2(x3),1") == [2, 2, 2, 1]
    assert tasks_per_node("16") == [16]

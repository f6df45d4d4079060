"""One run folder for all processes of a run, however they are started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta

from pcsr_lightning.errors import ConfigError

RUN_NAME = "PCSR_RUN_NAME"
"""The environment variable that ``hydra.run.dir`` ends in where it is set."""

_QUIET = ("hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")
STORE_TIMEOUT_S = 60
_SPECIAL_STEP = 0xFFFFFFF0  # from here on SLURM numbers steps that are no srun of ours


def as_one_run(arguments: Sequence[str]) -> list[str]:
    """The words of the command line, with what makes several processes one run.

    Processes started from outside (torchrun, srun) each compose the config, and would each name
    the run folder after the time they do it. Here they agree on a name, which goes into the
    environment; all but the first leave Hydra's own records and messages to the first.

    Args:
        arguments: of Hydra, without the command itself.

    Raises:
        ConfigError: there are several processes that cannot agree, and no ``hydra.run.dir``.
    """
    rank = outside_rank()
    if rank is None:
        return list(arguments)
    given = any(word.split("=")[0] in ("hydra.run.dir", "hydra.sweep.dir") for word in arguments)
    if not given and RUN_NAME not in os.environ:
        os.environ[RUN_NAME] = _common_name()
    return [*arguments, *(_QUIET if rank > 0 else ())]


def outside_rank() -> int | None:
    """The number of this process among those that torchrun, srun or the like have started.

    ``None`` where nothing of the kind did; Lightning's own processes get the folder from it.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"])
    if _in_slurm_step():
        return int(os.environ["SLURM_PROCID"])
    for size, rank in (("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), ("WORLD_SIZE", "RANK")):
        if int(os.environ.get(size) or 1) > 1 and rank in os.environ:
            return int(os.environ[rank])
    return None


def _in_slurm_step() -> bool:
    """Whether srun started this process, and not an interactive shell."""
    shell = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    step = os.environ.get("SLURM_STEP_ID", "")
    known = "SLURM_JOB_ID" in os.environ and "SLURM_PROCID" in os.environ
    return known and not shell and step.isdecimal() and int(step) < _SPECIAL_STEP


def _common_name() -> str:
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return _time_in_store()
    if "TORCHELASTIC_RUN_ID" not in os.environ and _in_slurm_step():
        # The same again after the job was requeued, so that the run finds its checkpoint.
        return f"slurm-{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_STEP_ID']}"
    raise ConfigError(
        "several processes were started from outside, and each would make a run folder of its "
        "own: name one for all of them with hydra.run.dir=FOLDER"
    )


def _time_in_store() -> str:
    """The time at which the first of torchrun's processes came here, on whatever machine.

    Raises:
        ConfigError: torchrun's store does not answer.
    """
    # Not at the top: most runs are of one process, and the words are read before torch is needed.
    from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=STORE_TIMEOUT_S))
        now = f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
        return str(store.compare_set("pcsr_lightning/run", "", now).decode())
    except (DistError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(
            f"torchrun's store at {address}:{port} does not answer ({first}): name the run folder "
            "with hydra.run.dir=FOLDER"
        ) from None

"""One run folder for all processes of a run, however they are started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta

from pcsr_lightning.distributed import ProcessGroup, launched_group
from pcsr_lightning.errors import ConfigError

RUN_NAME = "PCSR_RUN_NAME"
"""The environment variable that ``hydra.run.dir`` ends in where it is set."""

_QUIET = ("hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")
STORE_TIMEOUT_S = 60


def as_one_run(arguments: Sequence[str]) -> list[str]:
    """The command line's arguments, and those that make several processes one run.

    Processes started from outside (torchrun, srun) each compose the config, and would each name
    the run folder after the time they do it. Here they agree on a name, which goes into the
    environment; all but the first leave Hydra's own records and messages to the first.

    Args:
        arguments: of Hydra, without the command itself.

    Raises:
        ConfigError: there are several processes that cannot agree, and no ``hydra.run.dir``.
    """
    group = launched_group()
    if group.launcher is None:
        return list(arguments)
    given = any(word.split("=")[0] in ("hydra.run.dir", "hydra.sweep.dir") for word in arguments)
    if not given and RUN_NAME not in os.environ:
        os.environ[RUN_NAME] = _common_name(group)
    return [*arguments, *(_QUIET if group.rank > 0 else ())]


def _common_name(group: ProcessGroup) -> str:
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return _time_in_store()
    if group.launcher == "srun":
        # The same again after the job was requeued, so that the run finds its checkpoint.
        return f"slurm-{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_STEP_ID']}"
    raise ConfigError(
        "several processes were started from outside, and each would make a run folder of its "
        "own: name one for all of them with hydra.run.dir=FOLDER"
    )


def _time_in_store() -> str:
    """The time at which the first of torchrun's processes called this, on whatever machine.

    Raises:
        ConfigError: torchrun's store does not answer.
    """
    # Not at the top: most runs are of one process, and arguments are read before torch is needed.
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

"""One run folder for all processes of a run, however they are started, and for one run only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from pcsr_lightning.distributed import ProcessGroup, launched_group
from pcsr_lightning.errors import FAILED, ConfigError, exit_on_error
from pcsr_lightning.weights.runs import RunRecord

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


EVALUATED = ("metrics.json", "sweep.json", "m_sweep.json", "table.csv")


class FreshFolder(Callback):
    """Refuses a run folder that holds results, before Hydra writes into it.

    Set under ``hydra.callbacks`` in ``conf/``. A training goes on in its folder with ``ckpt_path``,
    a ``stage=all`` by itself, and so does a job that its launcher has started again.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Checks ``hydra.run.dir``."""
        self._check(config, "hydra.run.dir", check_run_folder)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Checks ``hydra.sweep.dir``."""
        self._check(config, "hydra.sweep.dir", check_sweep_folder)

    def _check(
        self, config: DictConfig, key: str, check: Callable[[DictConfig, Path], None]
    ) -> None:
        if _by_lightning():
            return
        HydraConfig.instance().set_config(config)  # for what the folder's name interpolates
        with exit_on_error():
            try:
                check_directory(config)
                check(config, Path(str(OmegaConf.select(config, key))))
            except ConfigError:
                if launched_group().rank > 0:  # the first process says it, for all of them
                    raise SystemExit(FAILED) from None
                raise


def check_directory(config: DictConfig) -> None:
    """Refuses ``hydra.job.chdir=true``.

    Raises:
        ConfigError: says why.
    """
    if config.hydra.job.chdir:
        raise ConfigError(
            "hydra.job.chdir=true: files and folders in settings (data.root, init, output, ...) "
            "are relative to where the command starts; leave it false, results go to hydra.run.dir"
        )


def check_run_folder(config: DictConfig, folder: Path) -> None:
    """Refuses a folder of results that this run does not go on with.

    Raises:
        ConfigError: says what is there and the ways out; or the stages there have other settings.
    """
    held = held_by(folder)
    if held is None or _started_again():
        return
    message = f"hydra.run.dir={folder} holds {held}: "
    if "ckpt_path" not in config:
        raise ConfigError(f"{message}give another hydra.run.dir, or remove that folder")
    stages, all_stages = any(folder.glob("stage-*")), config.stage.name == "all"
    if stages and all_stages:  # finished stages are kept, and one that was begun resumes
        # Here: an evaluation needs nothing of training.
        from pcsr_lightning.training.run_all import checked_plans

        task = OmegaConf.masked_copy(config, [str(key) for key in config if str(key) != "hydra"])
        checked_plans(task, folder)
        return
    if stages or all_stages or not any(folder.glob("checkpoints/*.ckpt")):
        raise ConfigError(f"{message}give another hydra.run.dir")
    own, given = folder.resolve(), config.ckpt_path
    if given is None or own not in (path := Path(given).resolve(), *path.parents):
        raise ConfigError(
            f"{message}resume it, or train it for longer, with ckpt_path={folder}; or give another "
            "hydra.run.dir"
        )


def check_sweep_folder(config: DictConfig, folder: Path) -> None:
    """Refuses a folder with results of a multirun, unless all its jobs are ``stage=all``.

    Raises:
        ConfigError: says what is there and the ways out.
    """
    if _started_again() or ("ckpt_path" in config and config.stage.name == "all"):
        return
    jobs = sorted(path for path in folder.glob("*/") if path.is_dir())
    for job in (*jobs, folder):
        held = held_by(job)
        if held is not None:
            raise ConfigError(
                f"hydra.sweep.dir={folder}: {job} holds {held}; give another hydra.sweep.dir, or "
                "remove that folder"
            )


def check_release_folder(folder: Path) -> None:
    """Refuses the folder of a finished release; one that was interrupted goes on.

    Raises:
        ConfigError: says what is there and the ways out.
    """
    if (folder / "measured.json").is_file():
        raise ConfigError(
            f"{folder} holds a finished release: give another --out, or remove that folder"
        )


def held_by(folder: Path) -> str | None:
    """What results a folder holds, in words; ``None`` for none."""
    record = RunRecord.read(folder)
    if record is not None:
        psnr = "" if record.val_psnr is None else f", {record.val_psnr:g} dB"
        kind = "a finished run" if record.complete else "an unfinished run"
        return f"{kind} (stage {record.stage}, {record.steps} steps{psnr})"
    if any(folder.glob("stage-*/checkpoints/*.ckpt")):
        return "the stages of a run with stage=all"
    if any(folder.glob("checkpoints/*.ckpt")):
        return "an unfinished run"
    if (folder / "model.safetensors").is_file():
        return "a model"
    found = [name for name in EVALUATED if (folder / name).is_file()]
    return f"results ({found[0]})" if found else None


def _started_again() -> bool:
    """Whether SLURM or torchrun has started this process again, with the command of before."""
    counts = [os.environ.get(f"{name}_RESTART_COUNT", "") for name in ("SLURM", "TORCHELASTIC")]
    return any(count.isdecimal() and int(count) > 0 for count in counts)


def _by_lightning() -> bool:
    """Whether this is a process that a training's first one started beside itself."""
    return launched_group().launcher is None and os.environ.get("LOCAL_RANK", "0") != "0"

"""``python -m pcsr_lightning.train stage=2 backbone=carn``, or ``stage=all``: one training."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pcsr_lightning.cli.hydra_command import FULL_ERROR, run_hydra_command
from pcsr_lightning.cli.run_folder import as_one_run
from pcsr_lightning.distributed import launched_group
from pcsr_lightning.errors import ConfigError, exit_on_error, system_errors_in_one_line
from pcsr_lightning.evaluation.measurement import known_numbers
from pcsr_lightning.evaluation.search import Objectives, Returned, failure_kept, returned
from pcsr_lightning.settings.overrides import check_taken
from pcsr_lightning.training.modules import LaterStage, SRStage
from pcsr_lightning.training.run_all import ALL, train_all, val_name
from pcsr_lightning.training.train_stage import train


def quoted_stage(argument: str) -> str:
    """``stage=2`` as ``stage="2"``: Hydra takes only strings as choices of a config group."""
    key, sign, value = argument.partition("=")
    if key.lstrip("+") != "stage" or not sign:
        return argument
    return key + sign + re.sub(r"(?<![\w\"'])(\d+)(?![\w\"'])", r'"\1"', value)


def several_devices(cfg: DictConfig) -> bool:
    """Whether a training takes, or may take, more than one process."""
    return str(cfg.trainer.devices) not in ("0", "1", "[0]") or cfg.trainer.num_nodes > 1


def check_multirun(cfg: DictConfig) -> None:
    """Refuses a multirun on several devices whose processes Lightning would start itself.

    It starts them with the multirun's own command line, so that with some sweepers each process
    silently trains with other settings.

    Raises:
        ConfigError: with the ways out.
    """
    trainer = cfg.trainer
    several = several_devices(cfg)
    own = str(trainer.strategy) in ("auto", "fsdp") or str(trainer.strategy).startswith("ddp")
    spawns = "spawn" in str(trainer.strategy) or "fork" in str(trainer.strategy)
    if several and own and not spawns and launched_group().launcher is None:
        raise ConfigError(
            f"-m with trainer.devices={trainer.devices}: strategy {trainer.strategy} starts its "
            "other processes with the multirun's own command line, and each could train something "
            "else. Use trainer.strategy=ddp_spawn, or one command a job (torchrun, SLURM through "
            "hydra/launcher=slurm, or a loop in the shell)"
        )


def run(cfg: DictConfig) -> Returned:
    """One job of the command line; a sweeper gets what ``objective`` names."""
    hydra_cfg = HydraConfig.get()
    run_dir = Path(hydra_cfg.runtime.output_dir)
    check_taken(cfg, list(hydra_cfg.overrides.task))
    objectives = Objectives.of(cfg.objective)
    check_measured(objectives, cfg)
    if hydra_cfg.mode != RunMode.MULTIRUN:
        return train_and_return(cfg, run_dir, objectives)
    check_multirun(cfg)
    objectives.check_directions(hydra_cfg.sweeper)
    # A process that went on to the next job alone would leave the others waiting for it.
    abrupt = several_devices(cfg) or cfg.debug is True or os.environ.get(FULL_ERROR) == "1"
    with failure_kept(run_dir, abrupt) as failures:
        return train_and_return(cfg, run_dir, objectives)
    return f"failed: {failures[0]}"


def check_measured(objectives: Objectives, cfg: DictConfig) -> None:
    """Refuses an objective that no stage of this package measures, before it is trained.

    What a stage from elsewhere measures, or the data's sets are called, is known once it was
    trained.

    Raises:
        ConfigError: names the objective, and what is measured.
    """
    metrics = [str(name) for name in cfg.get("metrics") or {}]
    if cfg.stage.name == ALL:
        known = known_numbers(cfg.num_classes, metrics)
        objectives.check([val_name(name) for name in known])
        return
    if isinstance(OmegaConf.select(cfg, "data.val_root"), DictConfig):
        return
    stage = hydra.utils.get_object(str(cfg.stage._target_))
    if issubclass(stage, SRStage) and stage.__module__.startswith("pcsr_lightning."):
        shares = range(cfg.num_classes if issubclass(stage, LaterStage) else 0)
        more = [*(f"share_{j}" for j in shares), *metrics]
        objectives.check([*stage.measured, *(f"val/{name}" for name in more)])


def train_and_return(cfg: DictConfig, run_dir: Path, objectives: Objectives) -> Returned:
    """Trains one stage, or with ``stage=all`` all of them; returns what the validation measured."""
    with system_errors_in_one_line(run_dir):
        measured = (train_all if cfg.stage.name == ALL else train)(cfg, run_dir)
    # Empty: nothing was validated, or another process has the numbers.
    return returned(objectives, measured, run_dir) if measured else None


def main() -> None:
    """Entry point of ``python -m pcsr_lightning.train``."""
    sys.argv[1:] = [quoted_stage(argument) for argument in sys.argv[1:]]
    with exit_on_error():
        sys.argv[1:] = as_one_run(sys.argv[1:])
    run_hydra_command(run, "train")

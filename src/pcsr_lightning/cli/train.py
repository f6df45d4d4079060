"""``python -m pcsr_lightning.train stage=2 backbone=carn``, or ``stage=all``: one training."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pcsr_lightning.cli.hydra_command import FULL_ERROR, run_hydra_command
from pcsr_lightning.cli.run_folder import as_one_run
from pcsr_lightning.distributed import launched_group
from pcsr_lightning.errors import ConfigError, exit_on_error, system_errors_in_one_line
from pcsr_lightning.settings.known_keys import renamed
from pcsr_lightning.training.m_sweep import failure_kept
from pcsr_lightning.training.run_all import ALL, train_all
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


def run(cfg: DictConfig) -> float | None:
    """One job of the command line; a sweeper gets the validation PSNR in dB."""
    hydra_cfg = HydraConfig.get()
    run_dir = Path(hydra_cfg.runtime.output_dir)
    if hydra_cfg.mode != RunMode.MULTIRUN:
        return train_as_named(cfg, run_dir)
    check_multirun(cfg)
    # A process that went on to the next job alone would leave the others waiting for it.
    abrupt = several_devices(cfg) or cfg.debug is True or os.environ.get(FULL_ERROR) == "1"
    with failure_kept(run_dir, abrupt):
        return train_as_named(cfg, run_dir)
    return None


def train_as_named(cfg: DictConfig, run_dir: Path) -> float | None:
    """Trains one stage, or with ``stage=all`` all of them; returns the validation PSNR in dB."""
    train_one_or_all = train_all if cfg.stage.name == ALL else train
    with system_errors_in_one_line(run_dir):
        return train_one_or_all(cfg, run_dir).get("val/psnr")


def main() -> None:
    """Entry point of ``python -m pcsr_lightning.train``."""
    sys.argv[1:] = [quoted_stage(renamed(argument)) for argument in sys.argv[1:]]
    with exit_on_error():
        sys.argv[1:] = as_one_run(sys.argv[1:])
    run_hydra_command(run, "train")

"""The training door: ``python -m pcsr_lightning.train stage=2 backbone=carn``, or ``stage=all``."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from omegaconf import DictConfig, OmegaConf

from pcsr_lightning.cli.hydra_command import FULL_ERROR, run_hydra_command
from pcsr_lightning.cli.run_folder import as_one_run
from pcsr_lightning.distributed import launched_group
from pcsr_lightning.errors import ConfigError, PCSRError, exit_on_error
from pcsr_lightning.training import FreezeEarlierStages, Schedule, SRStage
from pcsr_lightning.training.callbacks.checkpoints import WholeCheckpoints, validate_if_missing
from pcsr_lightning.training.callbacks.progress import quieten_lightning
from pcsr_lightning.training.callbacks.stopping import (
    StopBetweenSteps,
    Stopped,
    checkpoint_of_restart,
)
from pcsr_lightning.training.callbacks.wandb_report import report_model
from pcsr_lightning.training.config import TrainSettings
from pcsr_lightning.training.distillation import Teacher
from pcsr_lightning.training.initialization import Sizes, earlier_model, make_stage, stage_network
from pcsr_lightning.training.m_sweep import failure_kept
from pcsr_lightning.training.run_all import ALL, train_all
from pcsr_lightning.training.settings import typed
from pcsr_lightning.weights import LAST, RunRecord, read_checkpoint, save

log = logging.getLogger(__name__)


def train(cfg: DictConfig, run_dir: Path) -> SRStage:
    """Trains one stage.

    Args:
        cfg: composed from ``conf/train.yaml``.
        run_dir: where checkpoints, logs, the model file and the run's record go.

    Returns:
        The trained stage. ``run_dir`` then holds ``model.safetensors`` and ``model.json``,
        ``checkpoints/last.ckpt`` and ``best.ckpt``, and ``run.json``.

    Raises:
        PCSRError: a setting, the data or an earlier model cannot be used; raised before training.
    """
    settings = typed(cfg, TrainSettings)
    settings.check()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    quieten_lightning()
    L.seed_everything(settings.seed, workers=True, verbose=False)
    stage = build_stage(settings)
    settings.ckpt_path = checkpoint_of_restart(run_dir) or settings.ckpt_path
    if settings.ckpt_path is not None:
        check_resumable(Path(settings.ckpt_path), settings.facts)

    data: L.LightningDataModule = build(cfg.data, "data")
    trainer = make_trainer(cfg, settings, run_dir)
    if trainer.logger is not None:
        trainer.logger.log_hyperparams(_plain(cfg))
    try:
        try:
            trainer.fit(stage, datamodule=data, ckpt_path=settings.ckpt_path, weights_only=True)
        except Stopped:
            raise
        except SystemExit:  # Lightning's own way out of Ctrl-C
            raise KeyboardInterrupt from None
        trainer.save_checkpoint(run_dir / LAST, weights_only=False)
        validate_if_missing(trainer, stage, data)
        if trainer.is_global_zero:
            model = finish(trainer, stage, settings, run_dir)
            report_model(trainer, model, settings.facts)
        trainer.strategy.barrier("finished")  # the next stage of all ranks finds the model there
    finally:
        if settings.logger.get("_target_", "").endswith("WandbLogger"):
            import wandb

            wandb.finish()
    return stage


def make_trainer(cfg: DictConfig, settings: TrainSettings, run_dir: Path) -> L.Trainer:
    """Lightning's trainer with the logger and callbacks that the config names.

    Raises:
        ConfigError: Lightning does not take a setting, or there is no such device.
    """
    logger = build(with_own_folder(cfg.logger), "logger") if cfg.logger else False
    callbacks = [build(c, f"callbacks.{name}") for name, c in cfg.callbacks.items() if c]
    if logger is False:
        callbacks = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
    options = dict(settings.trainer)
    for key in ("val_check_interval", "log_every_n_steps"):  # a short run is logged too
        options[key] = min(options[key], options["max_steps"])
    # Without ours Lightning would put a bar of its own there.
    options["enable_progress_bar"] &= any(isinstance(c, ProgressBar) for c in callbacks)
    if not options["enable_progress_bar"]:
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    try:
        return L.Trainer(
            **options,
            logger=logger,
            callbacks=[FreezeEarlierStages(), StopBetweenSteps(run_dir / LAST), *callbacks],
            plugins=[WholeCheckpoints()],
            default_root_dir=run_dir,
            check_val_every_n_epoch=None,
            enable_model_summary=False,
        )
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise ConfigError(f"trainer: {error}") from None


def with_own_folder(logger: DictConfig) -> DictConfig:
    """A CSV logger for a folder not yet there: it would delete what a resumed run has logged."""
    if not str(logger.get("_target_")).endswith("CSVLogger"):
        return logger
    folder, first = Path(logger.save_dir) / logger.name, str(logger.version)
    version, count = first, 1
    while (folder / version).exists():
        count += 1
        version = f"{first}-{count}"
    renamed = OmegaConf.merge(logger, {"version": version})
    assert isinstance(renamed, DictConfig)
    return renamed


def build_stage(settings: TrainSettings) -> SRStage:
    """The stage that the settings ask for, on top of what earlier stages trained."""
    name, b = settings.stage.name, settings.backbone
    sizes = Sizes(b.args, b.upsamplers, b.classifier, b.mean)
    scale = settings.data.scale
    if name == "original" and (not isinstance(scale, int | float) or scale != int(scale)):
        raise ConfigError(f"data.scale={scale}: an original model is made for one whole scale")
    network = stage_network(
        name, b.name, settings.num_classes, sizes, int(scale) if name == "original" else 4
    )
    earlier = earlier_model(
        name, b.name, settings.num_classes, settings.init, Path(settings.output)
    )
    s = settings.stage
    schedule = Schedule(
        s.lr, settings.trainer["max_steps"], s.lr_min, (s.betas[0], s.betas[1]),
        s.optimizer, s.schedule, s.warmup, s.decay, s.vector_lr, s.weight_decay,
    )  # fmt: skip
    teacher = None if s.teacher is None else Teacher.load(s.teacher, s.teacher_share)
    return make_stage(
        network, earlier, schedule, settings.facts, s.queries, settings.seed,
        (s.w_recon, s.w_avg), s.recon, teacher, s.revive,
    )  # fmt: skip


def build(node: DictConfig, key: str) -> Any:
    """What a config group with a ``_target_`` makes.

    Raises:
        ConfigError: it cannot be made from these settings.
    """
    try:
        return hydra.utils.instantiate(node)
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, PCSRError):
            raise cause from None
        text = str(cause or error).splitlines()[0]
        raise ConfigError(f"{key}: cannot be used as set: {text}") from error


def check_resumable(path: Path, facts: dict[str, Any]) -> None:
    """Refuses a checkpoint of another stage, backbone or number of classes, naming both.

    Raises:
        ConfigError: it is of another kind.
        ModelFileError: it is damaged, or no checkpoint of ours.
    """
    kept, _ = read_checkpoint(path)
    was = {key: kept[key] for key in ("stage", "backbone", "num_classes")}
    now = {key: facts[key] for key in was}
    if was != now:
        raise ConfigError(f"ckpt_path={path} is of {_words(was)}; this run is {_words(now)}")


def finish(trainer: L.Trainer, stage: SRStage, settings: TrainSettings, run_dir: Path) -> Path:
    """Writes the model file, and the record that marks the run as finished; returns the former."""
    psnr = trainer.callback_metrics.get("val/psnr")
    val_psnr = None if psnr is None else round(float(psnr), 4)
    steps = trainer.global_step or settings.trainer["max_steps"]  # spawned processes keep theirs
    facts = {**settings.facts, "steps": steps, "val_psnr": val_psnr}
    path = save(stage.network, run_dir / "model", facts)
    RunRecord(
        settings.stage.name,
        settings.backbone.name,
        settings.num_classes,
        steps,
        time.time(),
        val_psnr,
    ).write(run_dir)
    log.info("trained %d steps; validation PSNR %s dB; %s", steps, val_psnr, path)
    return path


def _words(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in facts.items())


def _plain(cfg: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


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

    It starts them with the words of the whole multirun, so that with some sweepers each process
    trains with other settings, and nothing says so.

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
            "other processes with the words of the whole multirun, and each could train something "
            "else. Use trainer.strategy=ddp_spawn, or one command a job (torchrun, SLURM through "
            "hydra/launcher=slurm, or a loop in the shell)"
        )


def run(cfg: DictConfig) -> None:
    """One job of the command line."""
    hydra_cfg = HydraConfig.get()
    run_dir = Path(hydra_cfg.runtime.output_dir)
    if hydra_cfg.mode != RunMode.MULTIRUN:
        train_what_is_named(cfg, run_dir)
        return
    check_multirun(cfg)
    # A process that went on to the next job alone would leave the others waiting for it.
    abrupt = several_devices(cfg) or cfg.debug is True or os.environ.get(FULL_ERROR) == "1"
    with failure_kept(run_dir, abrupt):
        train_what_is_named(cfg, run_dir)


def train_what_is_named(cfg: DictConfig, run_dir: Path) -> None:
    """One stage, or with ``stage=all`` all of them."""
    if cfg.stage.name == ALL:
        train_all(cfg, run_dir, train)
    else:
        train(cfg, run_dir)


def main() -> None:
    """Entry point of ``python -m pcsr_lightning.train``."""
    sys.argv[1:] = [quoted_stage(argument) for argument in sys.argv[1:]]
    with exit_on_error():
        sys.argv[1:] = as_one_run(sys.argv[1:])
    run_hydra_command(run, "train", TrainSettings)

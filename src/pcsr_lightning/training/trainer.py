"""Lightning's trainer of a stage, with its loggers and callbacks."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ProgressBar
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.evaluation.loggers import is_wandb, make_loggers
from pcsr_lightning.settings.instantiation import in_plain_values, instantiate
from pcsr_lightning.training.callbacks.checkpoints import AtomicCheckpoints
from pcsr_lightning.training.callbacks.clock import Clock, parse_time
from pcsr_lightning.training.callbacks.last_validation import ValidateLastStep
from pcsr_lightning.training.callbacks.stopping import StopBetweenSteps
from pcsr_lightning.training.ending import CountSteps
from pcsr_lightning.training.run_length import with_intervals
from pcsr_lightning.weights import LAST

WANDB_ID = "wandb.id"
"""In a run folder: the id of its run in W&B, so that a resumed training goes on there."""


def make_trainer(cfg: DictConfig, run_dir: Path, checkpoint: Path | None = None) -> L.Trainer:
    """Lightning's trainer with the loggers and callbacks that the config names.

    Args:
        cfg: of the run.
        run_dir: of the run.
        checkpoint: that the run resumes from, if any; its W&B run goes on.

    Raises:
        ConfigError: Lightning does not take a setting, or there is no such device.
    """
    loggers = run_loggers(cfg, run_dir, checkpoint)
    callbacks = [
        instantiate(node, f"callbacks.{name}")
        for name, node in (cfg.get("callbacks") or {}).items()
        if node
    ]
    if not loggers:
        callbacks = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
    options = with_intervals(in_plain_values(cfg.trainer, "trainer"))
    # Without ours Lightning would put a bar and a checkpoint callback of its own there.
    options["enable_progress_bar"] &= any(isinstance(c, ProgressBar) for c in callbacks)
    if not options["enable_progress_bar"]:
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    options.setdefault("enable_checkpointing", any(isinstance(c, Checkpoint) for c in callbacks))
    duration = parse_time(options.pop("max_time", None))
    # The clock first: the others have to know that this was the last step.
    clock = [] if duration is None else [Clock(duration)]
    ours = [*clock, ValidateLastStep(), StopBetweenSteps(run_dir / LAST), CountSteps()]
    trainer = instantiate(
        options, "trainer",
        logger=loggers,
        callbacks=[*ours, *callbacks],
        plugins=[AtomicCheckpoints()],
        default_root_dir=run_dir,
        enable_model_summary=False,
    )  # fmt: skip
    assert isinstance(trainer, L.Trainer)
    return trainer


def run_loggers(cfg: DictConfig, run_dir: Path, checkpoint: Path | None) -> list[Any]:
    """The loggers that the config names; W&B's goes on with the run that is resumed.

    Raises:
        ConfigError: one of them does not take a setting, or cannot be reached.
    """
    settings = in_plain_values(cfg.get("logger") or {}, "logger")
    backbone, stage, classes = cfg.backbone.name, cfg.stage.name, cfg.num_classes
    of_wandb = {
        "name": f"{backbone}-m{classes}-stage-{stage}",
        "group": f"{backbone}-m{classes}",
        "tags": [backbone, f"stage {stage}", f"M = {classes}", str(cfg.optimizer._target_)],
    }
    if any(map(is_wandb, filter(None, settings.values()))):
        of_wandb["id"] = wandb_id(run_dir, checkpoint)
    return make_loggers(settings, of_wandb)


def wandb_id(run_dir: Path, checkpoint: Path | None) -> str:
    """The id of a run in W&B, kept in its folder: that of the run which is resumed, or a new one.

    Args:
        run_dir: of the run.
        checkpoint: that it resumes from, in ``checkpoints/`` of its own folder or another one.
    """
    folders = [run_dir, *(() if checkpoint is None else [checkpoint.parent.parent])]
    kept = [folder / WANDB_ID for folder in folders if (folder / WANDB_ID).is_file()]
    run_dir.mkdir(parents=True, exist_ok=True)
    found = kept[0].read_text(encoding="utf-8").strip() if kept else uuid.uuid4().hex[:8]
    rank_zero_only(atomic_write)(run_dir / WANDB_ID, f"{found}\n".encode())
    return found


def log_config(
    trainer: L.Trainer, cfg: DictConfig, stage: L.LightningModule, data: L.LightningDataModule
) -> None:
    """Logs the whole config, and nothing else as hyper-parameters, in every logger."""
    for part in (stage, data):
        # Lightning would log what they have saved for checkpoints: "1" in place of all of `stage`.
        part._log_hyperparams = False
    for logger in trainer.loggers:
        logger.log_hyperparams(in_plain_values(cfg, "config"))

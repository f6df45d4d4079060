"""How a training ended: at its own end, or cut short, which no stage may build on."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from omegaconf import DictConfig, OmegaConf

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.settings.instantiation import in_plain_values
from pcsr_lightning.training.callbacks.clock import time_is_up
from pcsr_lightning.training.earlier_run import scales
from pcsr_lightning.training.modules import SRStage
from pcsr_lightning.training.provenance import (
    data_hashes,
    digests_of,
    keep_pictures,
    provenance,
)
from pcsr_lightning.weights import RunRecord, file_hash, save

log = logging.getLogger(__name__)

TRIALS = {"fast_dev_run": False, "overfit_batches": 0.0, "limit_train_batches": 1.0}
"""Settings of the trainer that make a training a trial on a part of its data, and their defaults"""


class Ending(NamedTuple):
    """Whether a run came to its own end, and in words how it ended."""

    complete: bool
    how: str


class Counts(NamedTuple):
    """How far a training came: optimizer steps and epochs done, and whether its time is up."""

    steps: int
    epochs: int
    time_is_up: bool


class CountSteps(L.Callback):
    """Keeps how far a training came where spawned processes, too, bring it back: in the metrics."""

    STEPS, EPOCHS, TIME_IS_UP = "end/steps", "end/epochs", "end/time_is_up"

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        counts = {
            self.STEPS: trainer.global_step,
            self.EPOCHS: trainer.current_epoch,
            self.TIME_IS_UP: time_is_up(trainer),
        }
        trainer.callback_metrics.update({key: torch.tensor(n) for key, n in counts.items()})

    @classmethod
    def counted(cls, trainer: L.Trainer) -> Counts:
        """How far a training came; that of a checkpoint where no step was left to do."""
        found = trainer.callback_metrics
        return Counts(
            int(found.get(cls.STEPS, trainer.global_step)),
            int(found.get(cls.EPOCHS, trainer.current_epoch)),
            bool(found.get(cls.TIME_IS_UP, time_is_up(trainer))),
        )


def finish(
    trainer: L.Trainer,
    stage: SRStage,
    data: L.LightningDataModule,
    cfg: DictConfig,
    run_dir: Path,
    metadata: Mapping[str, Any],
) -> RunRecord:
    """Writes the model file, then the record that says how the run ended and what it was made of.

    The composed config lies beside them, where Hydra keeps it.

    Args:
        trainer: after ``fit``.
        stage: trained.
        data: that it was trained on.
        cfg: of the training.
        run_dir: where the files go.
        metadata: to keep beside the weights.
    """
    psnr = trainer.callback_metrics.get("val/psnr")
    val_psnr = None if psnr is None else round(float(psnr), 4)
    counts = CountSteps.counted(trainer)
    steps = counts.steps
    ended = ending(trainer, counts, in_plain_values(cfg.trainer, "trainer"))
    found = {**metadata, "steps": steps, "val_psnr": val_psnr}
    path = save(stage.network, run_dir / "model", found)
    composed = run_dir / ".hydra" / "config.yaml"
    if not composed.is_file():
        composed.parent.mkdir(exist_ok=True)
        atomic_write(composed, OmegaConf.to_yaml(cfg).encode())
    digests = digests_of(data)
    keep_pictures(digests, run_dir)
    record = RunRecord(
        stage=cfg.stage.name,
        backbone=cfg.backbone.name,
        num_classes=cfg.num_classes,
        steps=steps,
        finished=time.time(),
        val_psnr=val_psnr,
        complete=ended.complete,
        ended=ended.how,
        seed=cfg.seed,
        scale=scales(cfg),
        network=stage.network.config(),
        data=data_hashes(digests, in_plain_values(cfg.data, "data")),
        model=file_hash(path),
        provenance=provenance(trainer),
        **stage.hparams["run"],
    )
    record.write(run_dir)
    log.info("trained %d steps; validation PSNR %s dB; %s", steps, val_psnr, path)
    if not ended.complete:
        log.warning("not a finished run, on which no stage builds: %s; %s", ended.how, run_dir)
    return record


def ending(trainer: L.Trainer, counts: Counts, settings: Mapping[str, Any]) -> Ending:
    """How the training of a trainer ended.

    Its own end is the last of ``trainer.max_steps``, or without them of ``trainer.max_epochs``; or
    that of ``trainer.max_time``; or an :class:`EarlyStopping` callback, which is the user's own
    word on what enough is.

    Args:
        trainer: after ``fit``.
        counts: how far it came.
        settings: of the config's group ``trainer``.
    """
    steps, epochs, time_is_up = counts
    if trial := trial_run(settings):
        return Ending(False, f"a trial run of {steps} steps ({trial})")
    if trainer.max_steps != -1:
        done, planned, of = steps, trainer.max_steps, f"step {steps} of {trainer.max_steps}"
    else:
        done, planned = epochs, trainer.max_epochs or 0
        of = f"step {steps}, epoch {done} of {planned}"
    if 0 <= planned <= done:
        return Ending(True, f"after all of its {steps} steps")
    if time_is_up:
        return Ending(True, f"after trainer.max_time={settings['max_time']}, {steps} steps")
    for callback in trainer.early_stopping_callbacks:
        if callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            return Ending(True, f"stopped by EarlyStopping at {of}")
    return Ending(False, f"stopped by {_limit(trainer)} at {of}")


def trial_run(settings: Mapping[str, Any]) -> str | None:
    """The setting of the trainer that makes a training a trial; ``None`` without one.

    Args:
        settings: of the config's group ``trainer``.
    """
    for key, usual in TRIALS.items():
        value = settings.get(key)
        # One batch is written 1, all batches 1.0.
        one_batch = key == "limit_train_batches" and type(value) is int
        if value is not None and (value != usual or one_batch):
            return f"trainer.{key}={str(value).lower()}"
    return None


def _limit(trainer: L.Trainer) -> str:
    """What stopped a training before its end."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        left = callback.time_remaining() if isinstance(callback, Timer) else None
        if left is not None and left <= 0:
            return "a Timer"
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch:
        return f"trainer.max_epochs={trainer.max_epochs}"
    return "a callback"

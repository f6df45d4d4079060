"""The progress bar of a training, and quiet from the libraries below it."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from pcsr_lightning.training.callbacks.clock import clock_of


class TrainingProgress(RichProgressBar):
    """Steps done and to do, it/s, time left, loss and validation PSNR.

    A run is counted in steps, so Lightning's "Epoch 0" would say nothing: the stage is named. By
    the clock, the steps to do are those that the time left is enough for.
    """

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        clock = clock_of(trainer)
        if clock is not None and self.is_enabled:
            batches_s = (trainer.fit_loop.total_batch_idx + 1) / clock.time_elapsed()
            left = max(0.0, clock.duration_s - clock.time_elapsed()) * batches_s
            # Not by Progress.update, which would begin to measure the speed again.
            self.train_progress_bar.total = min(
                self.total_train_batches, batch_idx + 1 + round(left)
            )

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the logger's version, which the run's folder says better
        return metrics

    def _get_train_description(self, current_epoch: int) -> str:
        stage = self.trainer.lightning_module.hparams.get("stage", "?")
        return f"stage {stage}".ljust(len(self.validation_description))


def _no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip: For seamless cloud" not in record.getMessage()


def quieten_lightning() -> None:
    """Drops advertisements, and warnings about what is meant here."""
    # By name: a logger takes the same filter once only, however many trainings a process runs.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)
    for text in (
        r"Found \d+ module\(s\) in eval mode",  # frozen parts
        r".*treespec, LeafSpec.*",
        r".*does not have many workers.*",  # batches come from a memory map
        r"It is recommended to use .self.log\('val/",  # means of all processes already
        r"Checkpoint directory .* exists and is not empty",
        # Of hooks that do Lightning's own work then: such a step is not captured.
        r"When using `Trainer\(accumulate_grad_batches != 1\)`",
        r"This instance was constructed with capturable=True",  # the steps before a graph
    ):
        warnings.filterwarnings("ignore", message=text)


__all__ = ["TrainingProgress", "quieten_lightning"]

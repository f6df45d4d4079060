"""The validation after the last step of a run."""

from __future__ import annotations

import lightning as L
from torch import Tensor

from pcsr_lightning.training.callbacks.clock import time_is_up


class ValidateLastStep(L.Callback):
    """Validates after the last step too, where the interval between validations does not end there.

    What a run's record says of its model is then true of the weights that it ends with.
    """

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor | object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if at_last_step(trainer):
            validate_here(trainer)


def at_last_step(trainer: L.Trainer) -> bool:
    """Whether a run by steps, by epochs or by the clock has done its last step."""
    if 0 < trainer.max_steps <= trainer.global_step or time_is_up(trainer):
        return True
    return trainer.current_epoch + 1 == trainer.max_epochs and trainer.is_last_batch


def validate_here(trainer: L.Trainer) -> None:
    """Makes Lightning validate after this batch."""
    if trainer.val_check_batch is not None:  # else it validates by the clock
        batches = trainer.fit_loop.total_batch_idx + 1
        trainer.check_val_every_n_epoch, trainer.val_check_batch = None, batches

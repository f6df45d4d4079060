"""The validation after the last step of a run."""

from __future__ import annotations

import lightning as L
from torch import Tensor


class ValidateLastStep(L.Callback):
    """Validates after the last step too, where the interval between validations does not end there.

    What a run's record says of its model is then true of the weights that it ends with.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if 0 < trainer.max_steps <= trainer.global_step:  # resumed between the last step and that
            validate_here(trainer, trainer.fit_loop.total_batch_idx + 1)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor | object,
        batch: object,
        batch_idx: int,
    ) -> None:
        steps_done = 0 < trainer.max_steps <= trainer.global_step
        last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        if steps_done or (last_epoch and batch_idx + 1 == trainer.num_training_batches):
            validate_here(trainer, trainer.fit_loop.total_batch_idx + 1)


def validate_here(trainer: L.Trainer, batches: int) -> None:
    """Makes Lightning validate after so many batches of the run."""
    if trainer.val_check_batch is not None:  # else it validates by the clock
        trainer.check_val_every_n_epoch, trainer.val_check_batch = None, batches

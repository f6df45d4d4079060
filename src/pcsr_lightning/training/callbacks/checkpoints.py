"""Checkpoints that appear whole or not at all, whatever stops the process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from pcsr_lightning.atomic_io import atomic_write, remove_stale_temporaries


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes beside the checkpoint and renames.

    Lightning's own way writes into the system's folder for temporary files; where that is on
    another disk, moving the file copies it over the last good checkpoint, which a kill may cut.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Saves ``checkpoint`` as ``path``, a local file; its folder is made where missing."""
        del storage_options  # of remote file systems
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(target)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        atomic_write(target, content.getvalue())


def with_validation_ahead(checkpoint: dict[str, Any], counted: bool) -> None:
    """Marks a checkpoint so that a resumed run does the validation of its step first, all of it.

    Lightning by itself takes the validation of a checkpoint's step for done; a run that was killed
    before its end would miss that result, and the best checkpoint with it.

    Args:
        checkpoint: as Lightning is about to save it; changed in place.
        counted: resuming will not count the step once more on its way into the validation.
    """
    loops = checkpoint["loops"]["fit_loop"]
    progress = loops["epoch_loop.val_loop.batch_progress"]
    started = max(1, int(progress["total"]["ready"]))
    # What stands there when a validation is left amid a picture; of this one none is done.
    for count, ready in (("total", started), ("current", 1)):
        done = {"ready": ready, "started": ready, "processed": ready - 1, "completed": ready - 1}
        progress[count] = {**progress[count], **done}
    if not counted:
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def validate_if_missing(
    trainer: L.Trainer, stage: L.LightningModule, data: L.LightningDataModule
) -> None:
    """Does the last validation of a run that was stopped between its last step and that.

    Resuming it is not entering Lightning's loop over steps, which would validate otherwise.
    """
    if "val/psnr" not in trainer.callback_metrics:
        trainer.validate(stage, datamodule=data, verbose=False)
        trainer.state.fn = TrainerFn.FITTING  # elsewhere they save no checkpoint, and no best one
        for callback in trainer.checkpoint_callbacks:
            callback.on_validation_end(trainer, stage)

"""Ctrl-C ends a training between two steps, with a checkpoint to go on from."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

import lightning as L
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor


class StopBetweenSteps(L.Callback):
    """The first Ctrl-C finishes the step, saves ``checkpoint`` and stops; a second is abrupt.

    A checkpoint taken amid a step could hold half of the optimizer's update. With several
    processes nothing is changed: they could be at different steps when the signal comes.

    Args:
        checkpoint: the file to save.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.asked = False
        self._before: signal.Handlers | object = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size == 1:
            self._before = signal.signal(signal.SIGINT, self._ask)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor | object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if self.asked:
            trainer.save_checkpoint(self.checkpoint, weights_only=False)
            rank_zero_info(f"stopped at step {trainer.global_step}; resume with")
            rank_zero_info(f"  ckpt_path={self.checkpoint}")
            raise KeyboardInterrupt

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._put_back()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._put_back()

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self._put_back()
        self.asked = True

    def _put_back(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]
            self._before = None

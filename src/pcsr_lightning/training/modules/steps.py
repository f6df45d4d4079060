"""How a stage trains on a batch: by Lightning's own step, or by a captured one."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.optim import Optimizer

from pcsr_lightning.data import TrainBatch as Crops
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.training.captured_step import CapturedStep, not_finite, obstacle
from pcsr_lightning.training.modules.batches import TrainBatch, check_train_batch

log = logging.getLogger(__name__)


class TrainingSteps(L.LightningModule, ABC):
    """The training steps of a stage.

    Where a step is captured, :meth:`training_step` does all of it, and Lightning's own calls of the
    optimizer and of the backward pass do nothing. It is automatic optimization all the same: with
    manual optimization Lightning counts steps in another place of a checkpoint, steps no schedules
    and refuses ``gradient_clip_val``, and a run could not be resumed in the other way.

    Args:
        captured: whether a whole step is one CUDA graph, see docs/train.md; ``None`` for where it
            can be, on one CUDA device. ``True`` on a CPU trains by the same code without the graph.
    """

    def __init__(self, captured: bool | None = None) -> None:
        super().__init__()
        self.captured = captured
        self._captured_step: CapturedStep | None = None
        self._drawn: tuple[Any] | None = None

    @abstractmethod
    def losses(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to be minimised, and its parts to be logged."""

    def draw_queries(self, batch: TrainBatch) -> Any:
        """What :meth:`losses` draws at random in this step, tensors on the batch's device."""
        return None

    def queries_of_step(self, batch: TrainBatch) -> Any:
        """What this step has drawn: a captured one draws before, as a graph cannot."""
        return self.draw_queries(batch) if self._drawn is None else self._drawn[0]

    def prepare_capture(self) -> None:
        """Called before training by captured steps.

        Raises:
            ConfigError: says why this stage's steps cannot be captured.
        """
        raise ConfigError(f"{type(self).__name__} does not say how (prepare_capture)")

    def end_capture(self) -> None:
        """Undoes :meth:`prepare_capture`."""

    # Lightning's hooks, in the order of a run.

    def on_train_start(self) -> None:
        self.end_capture()
        self._captured_step = None
        device = self.trainer.strategy.root_device
        if self.captured is False or (self.captured is None and device.type != "cuda"):
            return
        reason = self._obstacle()
        if reason is not None:
            rank_zero_only(log.warning)("the training step is not captured: %s", reason)
            return
        [optimizer] = self.trainer.optimizers
        clip = partial(
            self.configure_gradient_clipping,
            optimizer,
            gradient_clip_val=self.trainer.gradient_clip_val,
            gradient_clip_algorithm=self.trainer.gradient_clip_algorithm,
        )
        self._captured_step = CapturedStep(
            self._losses_at, optimizer, clip, device, self.global_step
        )
        log.info("the training step is captured")

    def on_train_batch_start(self, batch: TrainBatch, batch_idx: int) -> None:
        check_train_batch(batch)

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        if self._captured_step is not None:
            return self._captured_training_step(batch, self._captured_step)
        loss, parts = self.losses(batch)
        self._log_losses(loss, parts)
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if self._captured_step is None:
            super().backward(loss, *args, **kwargs)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # A NaN written into the weights would only be noticed at the end of a long run.
        loss = self.trainer.callback_metrics.get("train/loss")
        if loss is not None and not bool(torch.isfinite(loss)):
            raise not_finite(float(loss), self.global_step)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        if self._captured_step is None:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        else:
            optimizer_closure()

    def on_validation_start(self) -> None:
        self._check_captured()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._check_captured()

    def on_train_end(self) -> None:
        self._check_captured()
        self.end_capture()
        self._captured_step = None

    # The captured step.

    def _obstacle(self) -> str | None:
        found = obstacle(self.trainer, self, TrainingSteps)
        losses = type(self).losses
        if found is None and self.captured is None and not _is_ours(losses):
            return f"{losses.__qualname__} may differ from step to step (else: stage.captured=true)"
        if found is None:
            try:
                self.prepare_capture()
            except ConfigError as error:
                return str(error)
        return found

    def _losses_at(self, batch: TrainBatch, drawn: Any) -> tuple[Tensor, dict[str, Tensor]]:
        self._drawn = (drawn,)
        try:
            return self.losses(batch)
        finally:
            self._drawn = None

    def _captured_training_step(self, batch: TrainBatch, step: CapturedStep) -> Tensor:
        crops = Crops(batch.lr_B3hw, batch.hr_B3HW, getattr(batch, "side_B", None))
        loss, parts = step(crops, self.draw_queries(batch))
        # Between these steps nobody waits for the device: neither logs nor the progress bar.
        if self.trainer._logger_connector.should_update_logs or self.trainer.is_last_batch:
            step.check()
            self._log_losses(loss.cpu(), {name: part.cpu() for name, part in parts.items()})
        return loss

    def _log_losses(self, loss: Tensor, parts: dict[str, Tensor]) -> None:
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in parts.items()})

    def _check_captured(self) -> None:
        if self._captured_step is not None:
            self._captured_step.check()


def _is_ours(function: Any) -> bool:
    return str(function.__module__).partition(".")[0] == __name__.partition(".")[0]

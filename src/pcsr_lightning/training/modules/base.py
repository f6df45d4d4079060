"""What all stages share: optimizer, schedule, validation, logging."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol, cast

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.image import PeakSignalNoiseRatio

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.images.protocol import eight_bit, shave
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.training.losses import LOSSES
from pcsr_lightning.training.optim.schedule import Schedule


class TrainBatch(Protocol):
    """What a training step gets: LR and HR crops in [0, 1]."""

    lr_B3hw: Tensor
    hr_B3HW: Tensor


class ValPicture(Protocol):
    """What a validation step gets: one whole picture."""

    lr: Tensor
    hr: Tensor
    name: str


class Restored(NamedTuple):
    """A whole picture made by a stage's network.

    Attributes:
        image_B3HW: unclamped.
        class_BHW: each pixel's class, 0 the heaviest; ``None`` where there is a single one.
    """

    image_B3HW: Tensor
    class_BHW: Tensor | None = None


class SRStage(L.LightningModule, ABC):
    """A stage of training: a network, of which some parts are trained and the others frozen.

    Args:
        network: what is trained, all parts of it.
        schedule: optimizer, learning rate and length.
        facts: plain values that the checkpoint keeps beside the weights (stage, backbone, ...).
        recon: kind of the reconstruction loss, see :func:`reconstruction_loss`.

    Raises:
        ConfigError: there is no such kind.
    """

    network: PCSR | Original

    def __init__(
        self,
        network: PCSR | Original,
        schedule: Schedule,
        facts: dict[str, Any] | None = None,
        recon: str = "l1",
    ) -> None:
        super().__init__()
        if recon not in LOSSES:
            raise ConfigError(f"stage.recon={recon}: must be one of {', '.join(LOSSES)}")
        self.recon = recon
        self.network = network
        self.schedule = schedule
        # Plain containers only: anything else could not be loaded back safely.
        self.save_hyperparameters({**(facts or {}), "network": network.config()})
        self.val_psnr = PeakSignalNoiseRatio(data_range=255.0, dim=(1, 2, 3))

    @abstractmethod
    def loss(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to go down and what to log beside it."""

    @abstractmethod
    def restore(self, lr_B3hw: Tensor, size: tuple[int, int]) -> Restored:
        """What this stage's network makes of a whole LR picture."""

    @abstractmethod
    def trained_parts(self) -> dict[str, nn.Module]:
        """The modules this stage trains, by name."""

    def frozen_parts(self) -> dict[str, nn.Module]:
        """The modules earlier stages trained, by name."""
        return {}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.schedule.make_optimizer(self.network)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": self.schedule.make_scheduler(optimizer),
                "interval": "step",
            },
        }

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        loss, parts = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in parts.items()})
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # A NaN written into the weights would only be noticed at the end of a long run.
        loss = self.trainer.callback_metrics.get("train/loss")
        if loss is not None and not bool(torch.isfinite(loss)):
            raise ConfigError(
                f"the training loss became {float(loss)} at step {self.global_step}: "
                "lower stage.lr, or look for damaged pictures in the data"
            )

    def validation_step(self, batch: ValPicture, batch_idx: int) -> dict[str, Tensor | None]:
        size = (batch.hr.shape[-2], batch.hr.shape[-1])
        sr, class_BHW = self.restore(batch.lr, size)
        border = max(1, round(size[0] / batch.lr.shape[-2]))
        self.val_psnr.update(shave(eight_bit(sr), border), shave(eight_bit(batch.hr), border))
        return {"image": sr, "classes": class_BHW}  # for callbacks that show them

    def on_validation_epoch_end(self) -> None:
        self.log("val/psnr", self.val_psnr.compute(), prog_bar=True, sync_dist=True)
        self.val_psnr.reset()

    def sum_over_ranks(self, x: Tensor) -> Tensor:
        """``x`` added up over all processes, with gradient; ``x`` itself in a single process."""
        if self.trainer.world_size == 1:
            return x
        return cast(Tensor, self.all_gather(x, sync_grads=True)).sum(dim=0)

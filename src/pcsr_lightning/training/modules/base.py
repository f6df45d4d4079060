"""What all stages share: optimizer, scheduler, validation, logging."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.image import PeakSignalNoiseRatio

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.images.comparison import eight_bit, shave
from pcsr_lightning.networks import PCSR, Original


class TrainBatch(Protocol):
    """What a training step gets: LR and HR crops in [0, 1]."""

    lr_B3hw: Tensor
    hr_B3HW: Tensor


class ValPicture(Protocol):
    """What a validation step gets: a full image."""

    lr: Tensor
    hr: Tensor
    name: str


class Prediction(NamedTuple):
    """A full image upscaled by a stage's network.

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
        loss: reconstruction loss of an upscaled picture against the ground truth.
        optimizer: makes the optimizer, see :func:`make_optimizer`.
        scheduler: makes the learning rate schedule of an optimizer, which is stepped after every
            training step; ``None`` keeps the rate as it is.
        name: of the stage: ``original``, ``1``, ``2``, ...
        metadata: more plain values that checkpoints keep beside the weights (backbone, seed, ...).
    """

    network: PCSR | Original

    def __init__(
        self,
        network: PCSR | Original,
        loss: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        *,
        name: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.loss = network, loss
        self.optimizer, self.scheduler = optimizer, scheduler
        # Plain containers only: anything else could not be loaded back safely.
        self.save_hyperparameters({"stage": name, **(metadata or {}), "network": network.config()})
        self.val_psnr = PeakSignalNoiseRatio(data_range=255.0, dim=(1, 2, 3))

    @abstractmethod
    def losses(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to be minimised, and its parts to be logged."""

    @abstractmethod
    def predict(self, lr_B3hw: Tensor, size: tuple[int, int]) -> Prediction:
        """A full LR image upscaled to ``size``, ``(H, W)``, as validation sees it."""

    @abstractmethod
    def trained_parts(self) -> dict[str, nn.Module]:
        """The modules this stage trains, by name."""

    def frozen_parts(self) -> dict[str, nn.Module]:
        """The modules earlier stages trained, by name."""
        return {}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = make_optimizer(self.optimizer, self.network)
        if self.scheduler is None:
            return optimizer
        schedule = self.scheduler(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        loss, parts = self.losses(batch)
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in parts.items()})
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # A NaN written into the weights would only be noticed at the end of a long run.
        loss = self.trainer.callback_metrics.get("train/loss")
        if loss is not None and not bool(torch.isfinite(loss)):
            raise ConfigError(
                f"the training loss became {float(loss)} at step {self.global_step}: "
                "lower optimizer.lr, or look for damaged pictures in the data"
            )

    def validation_step(self, batch: ValPicture, batch_idx: int) -> dict[str, Tensor | None]:
        size = (batch.hr.shape[-2], batch.hr.shape[-1])
        sr, class_BHW = self.predict(batch.lr, size)
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


def make_optimizer(factory: Callable[..., Optimizer], network: nn.Module) -> Optimizer:
    """The optimizer of a network's trainable parameters.

    Args:
        factory: takes the parameters, as torch's optimizers do; or the whole network, if it has an
            argument of that name (:class:`~pcsr_lightning.training.Muon` looks at its layers).
        network: what is trained.
    """
    if "network" in inspect.signature(factory).parameters:
        return factory(network=network)
    return factory([p for p in network.parameters() if p.requires_grad])

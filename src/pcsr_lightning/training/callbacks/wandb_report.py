"""What a training shows on Weights & Biases beyond its curves: pictures, a table, the model.

Nothing here imports ``wandb`` unless its logger was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray
from torch import Tensor

from pcsr_lightning.evaluation.loggers import side_by_side
from pcsr_lightning.images.comparison import eight_bit
from pcsr_lightning.inference import class_map
from pcsr_lightning.networks import bilinear_upsample
from pcsr_lightning.training.modules.base import ValPicture


class WandbReport(L.Callback):
    """Shows validation pictures with their class maps, if the logger is W&B's.

    Args:
        pictures: how many, at every validation.
    """

    def __init__(self, pictures: int = 4) -> None:
        self.pictures = pictures
        self._shown: list[tuple[str, NDArray[np.uint8]]] = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: ValPicture,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        wanted = batch_idx < self.pictures and trainer.is_global_zero
        if wanted and wandb_logger(trainer) is not None:
            count = getattr(pl_module.network, "num_classes", 1)
            assert isinstance(count, int)
            shown = panel(batch, outputs["image"], outputs["classes"], count)
            self._shown.append((batch.name, shown))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        logger = wandb_logger(trainer)
        if logger is not None and self._shown:
            names, panels = zip(*self._shown, strict=True)
            step = trainer.global_step
            logger.log_image("val/pictures", list(panels), step=step, caption=list(names))
        self._shown.clear()


def panel(
    picture: ValPicture, sr_13HW: Tensor, class_1HW: Tensor | None, num_classes: int
) -> NDArray[np.uint8]:
    """The enlarged input, what the network makes of it, its class map if it has one, the ground
    truth.

    Returns:
        ``(H, W, 3)``, the parts beside each other.
    """
    size = (picture.hr.shape[-2], picture.hr.shape[-1])
    parts = [bilinear_upsample(picture.lr.float(), size)[0], sr_13HW[0].float()]
    if class_1HW is not None:
        parts.append(class_map(sr_13HW[0].float().clamp(0, 1), class_1HW[0], num_classes))
    parts.append(picture.hr[0])
    return side_by_side([eight_bit(part).byte() for part in parts])


def report_model(trainer: L.Trainer, model: Path, metadata: Mapping[str, Any]) -> None:
    """Logs a finished training's row of results, and its model as an artifact.

    Args:
        trainer: of the training; does nothing if its logger is not W&B's.
        model: the ``.safetensors`` file, with its ``.json`` beside it.
        metadata: stage, backbone, number of classes, seed.
    """
    logger = wandb_logger(trainer)
    if logger is None:
        return
    import wandb

    measured = {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val/")
    }
    row = {**metadata, "steps": trainer.global_step, **measured}
    logger.log_table("results", columns=list(row), data=[list(row.values())])
    name = f"{metadata['backbone']}-m{metadata['num_classes']}-stage-{metadata['stage']}"
    artifact = wandb.Artifact(name, type="model", metadata=row)
    for file in (model, model.with_suffix(".json")):
        artifact.add_file(str(file))
    logger.experiment.log_artifact(artifact)


def wandb_logger(trainer: L.Trainer) -> WandbLogger | None:
    """The trainer's W&B logger, if it has one."""
    found = (logger for logger in trainer.loggers if isinstance(logger, WandbLogger))
    return next(found, None)

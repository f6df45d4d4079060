"""What loggers get of a training beyond its curves: pictures, and in W&B a table and the model.

Nothing here imports ``wandb`` unless its logger was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import CSVLogger
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pcsr_lightning.evaluation.log_results import log_pictures, log_table, side_by_side
from pcsr_lightning.evaluation.loggers import plain_name, wandb_logger
from pcsr_lightning.images.comparison import eight_bit
from pcsr_lightning.inference import class_map
from pcsr_lightning.networks import bilinear_upsample
from pcsr_lightning.training.modules.batches import ValPicture


class ValidationPictures(L.Callback):
    """Shows validation pictures with their class maps in every logger that takes pictures.

    Args:
        pictures: how many, at every validation.
        files: writes PNG files beside the CSV logger's file, too.
    """

    def __init__(self, pictures: int = 4, files: bool = False) -> None:
        self.pictures, self.files = pictures, files
        self._shown: dict[str, NDArray[np.uint8]] = {}

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: ValPicture,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        enough = len(self._shown) >= self.pictures or not trainer.is_global_zero
        if enough or not self._wanted(trainer):
            return
        count = getattr(pl_module.network, "num_classes", 1)
        assert isinstance(count, int)
        self._shown[batch.name] = panel(batch, outputs["image"], outputs["classes"], count)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._shown:
            log_pictures(trainer.loggers, "val/pictures", self._shown, trainer.global_step)
        for logger in trainer.loggers if self.files else ():
            if isinstance(logger, CSVLogger):
                self._write(Path(logger.log_dir) / "pictures", trainer.global_step)
        self._shown.clear()

    def _wanted(self, trainer: L.Trainer) -> bool:
        return self.files or any(not isinstance(one, CSVLogger) for one in trainer.loggers)

    def _write(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, image_HW3 in self._shown.items():
            Image.fromarray(image_HW3).save(folder / f"{plain_name(name)}_{step}.png")


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
    """Logs a finished training's row of results, and its model as an artifact, in W&B.

    Args:
        trainer: of the training; does nothing if none of its loggers is W&B's.
        model: the ``.safetensors`` file, with its ``.json`` beside it.
        metadata: stage, backbone, number of classes, seed.
    """
    logger = wandb_logger(trainer.loggers)
    if logger is None:
        return
    import wandb

    measured = {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val/")
    }
    row = {**metadata, "steps": trainer.global_step, **measured}
    log_table([logger], "results", [row])
    name = f"{metadata['backbone']}-m{metadata['num_classes']}-stage-{metadata['stage']}"
    artifact = wandb.Artifact(name, type="model", metadata=row)
    for file in (model, model.with_suffix(".json")):
        artifact.add_file(str(file))
    logger.experiment.log_artifact(artifact)

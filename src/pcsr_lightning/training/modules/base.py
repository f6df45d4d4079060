"""What all stages share: optimizer, scheduler, validation, logging."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, cast

import lightning as L
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from pcsr_lightning.data import PredictPicture
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.picture_metrics import PictureMetric, measure_pictures
from pcsr_lightning.inference.checks import output_size
from pcsr_lightning.networks import PCSR, AnyNetwork, evaluating
from pcsr_lightning.training.callbacks.freezing import FreezeEarlierStages
from pcsr_lightning.training.modules.batches import ValPicture, check_val_picture
from pcsr_lightning.training.modules.steps import TrainingSteps
from pcsr_lightning.training.optim.factories import make_optimizer, make_schedule
from pcsr_lightning.training.validation import ValidationMeans
from pcsr_lightning.weights import load_model_file


class Prediction(NamedTuple):
    """A full image upscaled by a stage's network.

    Attributes:
        image_B3HW: unclamped.
        class_BHW: each pixel's class, 0 the heaviest; ``None`` where there is a single one.
        gmacs: 10^9 multiply-adds that it took; ``None`` if nobody counted.
    """

    image_B3HW: Tensor
    class_BHW: Tensor | None = None
    gmacs: float | None = None


class SRStage(TrainingSteps):
    """A stage of training: a network, of which some parts are trained and the others frozen.

    Args:
        network: what is trained, all parts of it.
        loss: reconstruction loss of an upscaled picture against the ground truth, any module of two
            tensors; ``None`` for the paper's, the mean absolute error.
        optimizer: makes the optimizer of the parameters it gets, such as
            ``partial(torch.optim.Adam, lr=1e-3)``; ``None`` if nothing is to be trained.
        scheduler: makes the learning rate schedule of an optimizer, see
            :func:`~pcsr_lightning.training.optim.make_schedule`; ``None`` keeps the rate as it is.
        name: of the stage: ``original``, ``1``, ``2``, ...
        captured: whether a training step is one CUDA graph, see :class:`TrainingSteps`.
        metrics: of validation beside PSNR, by the names they are logged under, ``val/NAME``: each
            gets an upscaled picture and the ground truth, ``(1, 3, H, W)`` in [0, 1], rounded to
            8 bit with a border shaved off, and gives one number.
        metadata: more plain values that checkpoints keep beside the weights (backbone, seed, ...).
    """

    network: AnyNetwork
    network_class: ClassVar[type[nn.Module]] = PCSR
    """What it trains."""
    measured: ClassVar[tuple[str, ...]] = ("val/psnr", "val/gmacs")
    """What validation logs."""

    def __init__(
        self,
        network: AnyNetwork,
        loss: nn.Module | None = None,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        *,
        name: str,
        captured: bool | None = None,
        metrics: Mapping[str, PictureMetric] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(captured)
        self.network, self.loss = network, nn.L1Loss() if loss is None else loss
        self.optimizer, self.scheduler = optimizer, scheduler
        config = network.config()
        known = {"backbone": config["backbone"]["name"], "num_classes": network.num_classes}
        # Plain containers only: anything else could not be loaded back safely.
        # Not logged: loggers get the whole config.
        hparams = {"stage": name, **known, **(metadata or {}), "network": config}
        self.save_hyperparameters(hparams, logger=False)
        # Not a ModuleDict: their weights belong neither to checkpoints nor to DDP.
        self.metrics = dict(metrics or {})
        self._means = ValidationMeans()

    @abstractmethod
    def predict(self, lr_B3hw: Tensor, size: tuple[int, int]) -> Prediction:
        """A full LR image upscaled to ``size``, ``(H, W)``, as validation sees it."""

    @abstractmethod
    def trained_parts(self) -> dict[str, nn.Module]:
        """The modules this stage trains, by name."""

    def frozen_parts(self) -> dict[str, nn.Module]:
        """The modules earlier stages trained, by name."""
        return {}

    def forward(
        self,
        lr_B3hw: Tensor,
        scale: float | Sequence[float] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Full pictures upscaled as in validation: ``(B, 3, H, W)``, in [0, 1].

        Args:
            lr_B3hw: pictures in [0, 1].
            scale: of the result; 4 if ``None``, or an original model's own.
            size: ``(H, W)`` of the result, instead of a scale.

        Raises:
            ConfigError: a scale or size that cannot be used.
        """
        if size is None:
            wanted = (self.network.scale or 4) if scale is None else scale
            size = output_size((lr_B3hw.shape[-2], lr_B3hw.shape[-1]), wanted)
        with evaluating(self.network):
            return self.predict(lr_B3hw, size).image_B3HW.clamp(0, 1)

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **options: Any,
    ) -> Self:
        """A stage with the network of a checkpoint, in evaluation mode.

        Nothing in the file is executed. ``SRStage`` itself gives the stage that fits the network.

        Args:
            checkpoint_path: a ``.ckpt`` file of a training.
            map_location: the device; ``None`` for the CPU.
            hparams_file: must be left out: the checkpoint itself says what the network is.
            strict: must not be ``False``: the network is loaded whole.
            weights_only: must not be ``False``: no code of a file is run.
            options: further arguments of the stage, such as loss and optimizer to train it on.

        Raises:
            ModelFileError: it cannot be read, or is no checkpoint of a stage.
            ConfigError: it is of another kind of stage, or an argument is not as above.
        """
        if hparams_file is not None or strict is False or weights_only is False:
            raise ConfigError(
                "a checkpoint's network is loaded whole, from the checkpoint alone, and without "
                "running code: leave out hparams_file, strict and weights_only"
            )
        from pcsr_lightning.training import modules

        network, metadata = load_model_file(Path(checkpoint_path))
        kind = cls if not inspect.isabstract(cls) else modules.stage_class(network)
        if not isinstance(network, kind.network_class):
            raise ConfigError(
                f"{checkpoint_path} is of stage {metadata['stage']}, which {kind.__name__} is not"
            )
        make: Callable[..., SRStage] = kind
        stage = make(network, name=metadata.pop("stage"), metadata=metadata, **options)
        return cast(Self, stage.to(map_location or "cpu").eval())

    def configure_callbacks(self) -> list[L.Callback]:
        there = any(isinstance(c, FreezeEarlierStages) for c in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [] if there else [FreezeEarlierStages()]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.optimizer is None:
            raise ConfigError(
                f"{type(self).__name__} has no optimizer: give it one to train, such as "
                "optimizer=partial(torch.optim.Adam, lr=1e-3)"
            )
        optimizer = make_optimizer(self.optimizer, self.network)
        if self.scheduler is None:
            return optimizer
        schedule: Any = make_schedule(self.scheduler, optimizer, self._trainer)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_validation_epoch_start(self) -> None:
        self._means.clear()

    def validation_step(
        self, batch: ValPicture, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor | None]:
        check_val_picture(batch)
        size = (batch.hr.shape[-2], batch.hr.shape[-1])
        sr, class_BHW, gmacs = self.predict(batch.lr, size)
        border = max(1, round(size[0] / batch.lr.shape[-2]))
        pictures = [(sr[b : b + 1], batch.hr[b : b + 1]) for b in range(len(sr))]
        numbers = [
            {"psnr": psnr(sr_13HW, hr_13HW, border)}
            | measure_pictures(self.metrics, sr_13HW, hr_13HW, border)
            | ({} if gmacs is None else {"gmacs": gmacs / len(sr)})
            | ({} if class_BHW is None else self._shares(class_BHW[b]))
            for b, (sr_13HW, hr_13HW) in enumerate(pictures)
        ]
        self._means.add(numbers, self.trainer, batch_idx, dataloader_idx, self.device)
        return {"image": sr, "classes": class_BHW}  # for callbacks that show them

    def on_validation_epoch_end(self) -> None:
        for name, mean in self._means.compute().items():  # of all processes already
            self.log(name, mean, prog_bar=name == "val/psnr")

    def _shares(self, class_HW: Tensor) -> dict[str, float]:
        """The share of the pixels in each class."""
        counts = class_HW.flatten().bincount(minlength=self.network.num_classes).tolist()
        return {f"share_{j}": count / class_HW.numel() for j, count in enumerate(counts)}

    def on_test_epoch_start(self) -> None:
        self._means.clear()

    def test_step(
        self, batch: ValPicture, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor | None]:
        """As in validation; what it measures is logged below ``test/``."""
        return self.validation_step(batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        for name, mean in self._means.compute().items():
            self.log(f"test/{name.removeprefix('val/')}", mean)

    def predict_step(self, batch: PredictPicture | Tensor, batch_idx: int) -> dict[str, Any]:
        """A picture that is to be upscaled; a tensor ``(B, 3, h, w)`` as :meth:`forward` does it.

        Returns:
            ``image`` ``(B, 3, H, W)`` in [0, 1]; ``classes`` ``(B, H, W)``, the class of each
            pixel, or ``None`` where there is a single one; ``name``, if the batch has one.
        """
        lr, size, name = (batch, None, None) if isinstance(batch, Tensor) else batch
        if size is None:
            size = output_size((lr.shape[-2], lr.shape[-1]), self.network.scale or 4)
        image, classes, _ = self.predict(lr, size)
        return {"image": image.clamp(0, 1), "classes": classes, "name": name}

    def sum_over_ranks(self, x: Tensor) -> Tensor:
        """``x`` added up over all processes, with gradient; ``x`` itself in a single process."""
        if self.trainer.world_size == 1:
            return x
        return cast(Tensor, self.all_gather(x, sync_grads=True)).sum(dim=0)

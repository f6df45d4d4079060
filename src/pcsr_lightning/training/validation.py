"""What a validation measures: means over pictures, each counted once on any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler
from torchmetrics import MeanMetric


class ValidationMeans:
    """The means of a validation, by the names they are logged under.

    ``psnr`` of a set called ``set5`` is ``val/set5/psnr``; that of the first set, or of one without
    a name, is ``val/psnr``.
    """

    def __init__(self) -> None:
        self._means: dict[str, MeanMetric] = {}

    def clear(self) -> None:
        """Starts a validation."""
        self._means.clear()

    def add(
        self,
        numbers: Sequence[Mapping[str, float]],
        trainer: L.Trainer,
        batch_idx: int,
        dataloader_idx: int,
        device: torch.device,
    ) -> None:
        """Adds what was measured of a batch, without the pictures that another process counts.

        Args:
            numbers: of each picture, by name; all processes must have the same names.
            trainer: in a validation.
            batch_idx: of the batch, on this process.
            dataloader_idx: of its loader.
            device: that processes exchange tensors of.
        """
        name, loader = list(validation_sets(trainer).items())[dataloader_idx]
        prefixes = [f"val/{name}/"] if name else []
        prefixes += ["val/"] if dataloader_idx == 0 else []
        counted = counted_pictures(loader, batch_idx, len(numbers))
        for prefix, number in product(prefixes, numbers[0]):
            key = f"{prefix}{number}"
            if key not in self._means:
                # NaN of one picture is NaN of the mean, not left out.
                self._means[key] = MeanMetric(nan_strategy="disable").to(device)
            for picture, counts in zip(numbers, counted, strict=True):
                if counts:
                    self._means[key].update(picture[number])

    def compute(self) -> dict[str, Tensor]:
        """The means over the pictures of all processes; each process gets them."""
        return {key: mean.compute() for key, mean in self._means.items()}


def validation_sets(trainer: L.Trainer) -> dict[str, Any]:
    """The loaders of the validation that runs, by name: ``""`` for a single one.

    Those of a list are called ``0``, ``1`` and so on.
    """
    # `trainer.val_dataloaders` names those of an earlier fit during `trainer.validate`.
    combined = trainer._evaluation_loop._combined_loader
    assert combined is not None
    loaders = combined.iterables
    if isinstance(loaders, Mapping):
        return {str(name): loader for name, loader in loaders.items()}
    if isinstance(loaders, Sequence):
        return {str(number): loader for number, loader in enumerate(loaders)}
    return {"": loaders}


def counted_pictures(loader: Any, batch_idx: int, count: int) -> list[bool]:
    """Which pictures of a batch count; the others only fill up, so that all processes have as many.

    Lightning gives loaders on several devices a ``DistributedSampler``, which hands out the
    pictures in turn and then starts again from the first ones.

    Args:
        loader: of a validation.
        batch_idx: of the batch, on this process.
        count: pictures in the batch.
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        return [True] * count
    size = getattr(loader.batch_sampler, "batch_size", None)  # None: an item is a whole batch
    items = (
        [batch_idx] * count if size is None else range(batch_idx * size, batch_idx * size + count)
    )
    total = len(sampler.dataset)  # type: ignore[arg-type]
    return [item * sampler.num_replicas + sampler.rank < total for item in items]

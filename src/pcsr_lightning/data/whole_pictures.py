"""Whole pictures: for validation and tests, from a cache, and to be upscaled, from their files.

Shapes: `H W` HR pixels, `h w` LR pixels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pcsr_lightning.data.picture_cache import PictureCache
from pcsr_lightning.images import list_pictures, read


class RawPicture(NamedTuple):
    """A validation picture on its way to the device: uint8 (1, 3, H, W)."""

    hr_B3HW: Tensor
    name: str


class ValPicture(NamedTuple):
    """One full validation picture, float32: `lr` (1, 3, h, w) and `hr` (1, 3, H, W)."""

    lr: Tensor
    hr: Tensor
    name: str


class PredictPicture(NamedTuple):
    """A picture to be upscaled: `lr` (1, 3, h, w), float32, and the size of the result, (H, W)."""

    lr: Tensor
    size: tuple[int, int]
    name: str


class ValidationPictures(Dataset[RawPicture]):
    """Whole pictures at full size, from a cache: libvips must not run in forked loader workers.

    Args:
        cache: the pictures.
        limit: take at most so many, spread evenly over the list; all if None.
    """

    def __init__(self, cache: PictureCache, limit: int | None = None) -> None:
        self.cache = cache
        full = [n for n, picture in enumerate(cache.pictures) if picture.scale == 1]
        count = len(full) if limit is None else min(limit, len(full))
        self.numbers = [full[int(n)] for n in np.linspace(0, len(full) - 1, count).round()]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> RawPicture:
        at = self.numbers[number]
        hr_HWC = torch.from_numpy(self.cache.pixels(at).copy())
        return RawPicture(hr_HWC.permute(2, 0, 1)[None], self.cache.pictures[at].source)


class PicturesToUpscale(Dataset[PredictPicture]):
    """The pictures of a folder, sub-folders too, to be upscaled.

    Args:
        folder: the pictures are read from their files.
        scale: of the results.
    """

    def __init__(self, folder: Path, scale: float) -> None:
        self.folder, self.files, self.scale = folder, list_pictures(folder), scale

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> PredictPicture:
        file = self.files[number]
        lr_13hw = read(file).rgb[None]
        height, width = (round(side * self.scale) for side in lr_13hw.shape[2:])
        return PredictPicture(lr_13hw, (height, width), file.relative_to(self.folder).as_posix())


def picture_loaders(
    pictures: Mapping[str, ValidationPictures], num_workers: int, pin_memory: bool
) -> DataLoader[RawPicture] | dict[str, DataLoader[RawPicture]]:
    """One picture at a time; a loader for each folder where they have names."""
    loaders = {
        name: DataLoader(
            dataset,
            batch_size=None,
            shuffle=False,
            num_workers=num_workers,
            pin_memory=pin_memory,
        )
        for name, dataset in pictures.items()
    }
    return loaders.get("", loaders)

"""Training batches by step number, and whole pictures for validation.

A training item is the whole batch of one step, and its crops depend only on (seed, step): resuming
at step n needs no state, and every rank of a distributed run takes its share of the same batch.
Shapes: `B` crops of a rank, `H W` HR pixels, `h w` LR pixels, `C` = 3 channels.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from pcsr_lightning.data.crop_index import CropIndex
from pcsr_lightning.data.picture_cache import PictureCache
from pcsr_lightning.images import list_pictures, read

_log = logging.getLogger(__name__)


class RawCrops(NamedTuple):
    """A step's crops on their way to the device: uint8, each with its margin on all four sides."""

    window_BHWC: Any  # ndarray in the dataset, Tensor behind the loader
    step: int
    rank: int


class RawPicture(NamedTuple):
    """A validation picture on its way to the device: uint8 (1, 3, H, W)."""

    hr_B3HW: Tensor
    name: str


class TrainBatch(NamedTuple):
    """What a stage trains on.

    Attributes:
        lr_B3hw: float32; neither rounded nor clamped, so it may overshoot [0, 1] a little.
        hr_B3HW: float32 in [0, 1], or uint8.
        side_B: int64, the HR side of each crop where crops of one batch have different scales:
            crop `b` is `hr_B3HW[b, :, :side, :side]`. `None`: each crop is all of its HR pixels.
    """

    lr_B3hw: Tensor
    hr_B3HW: Tensor
    side_B: Tensor | None = None


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


class StepBatches(Dataset[RawCrops]):
    """Item `i` is the batch of training step `i`.

    The crops are an endless row of permutations of all crops, a new one each pass; step `i` takes
    `batch_size` of them from place `i * batch_size` on.

    Args:
        cache: the pictures.
        numbers: which of the cache's pictures, in the order of `index`.
        index: the crops of those pictures.
        batch_size: crops of a step over all ranks; `world_size` divides it.
        margin: pixels around a crop, mirrored at the picture's border.
        steps: length of an epoch in steps; items beyond it exist too.
    """

    def __init__(
        self,
        cache: PictureCache,
        numbers: Sequence[int],
        index: CropIndex,
        batch_size: int,
        margin: int,
        seed: int,
        steps: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.cache, self.numbers, self.index = cache, list(numbers), index
        self.batch_size, self.margin, self.seed, self.steps = batch_size, margin, seed, steps
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.steps

    def crop_numbers(self, step: int) -> NDArray[np.int64]:
        """The crops of a step on this rank."""
        share = self.batch_size // self.world_size
        first = step * self.batch_size + self.rank * share
        data_epoch, place = np.divmod(np.arange(first, first + share), len(self.index))
        numbers = np.empty(share, np.int64)
        for epoch in np.unique(data_epoch):
            here = data_epoch == epoch
            numbers[here] = _permutation(self.seed, int(epoch), len(self.index))[place[here]]
        return numbers

    def __getitem__(self, step: int) -> RawCrops:
        picture, top, left = self.index.locate(self.crop_numbers(step))
        side = self.index.crop + 2 * self.margin
        window_BHWC = np.empty((len(picture), side, side, 3), np.uint8)
        for b, number in enumerate(picture):
            pixels = self.cache.pixels(self.numbers[number])
            _cut(pixels, int(top[b]) - self.margin, int(left[b]) - self.margin, window_BHWC[b])
        return RawCrops(window_BHWC, step, self.rank)


def _cut(pixels: NDArray[np.uint8], top: int, left: int, out: NDArray[np.uint8]) -> None:
    """Fills `out` with the window at (top, left), which may reach over the picture's border."""
    height, width, _ = pixels.shape
    side = len(out)
    if top >= 0 and left >= 0 and top + side <= height and left + side <= width:
        out[:] = pixels[top : top + side, left : left + side]
        return
    rows, columns = _mirrored(top, side, height), _mirrored(left, side, width)
    # Whole runs of rows first, then single pixels: twice as quick as both in one go.
    first, last = columns.min(), columns.max() + 1
    np.take(pixels[rows, first:last], columns - first, axis=1, out=out)


def _mirrored(start: int, count: int, size: int) -> NDArray[np.int64]:
    """Indices of `count` pixels from `start` on in a row of `size`, mirrored at both borders."""
    index = np.arange(start, start + count) % (2 * size)
    mirrored: NDArray[np.int64] = np.minimum(index, 2 * size - 1 - index)
    return mirrored


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(n)


class StepSampler(DistributedSampler[int]):
    """Yields step numbers, from the trainer's present step to the end of the epoch.

    It is a `DistributedSampler` in name only, so that Lightning leaves it in place on several
    devices: all ranks get the same steps, and the dataset hands each rank its own crops.

    Args:
        steps: length of an epoch.
        first: asked at each start of iteration for the step to go on from. Lightning starts the
            first iteration after it has restored a checkpoint's step.
    """

    def __init__(self, dataset: StepBatches, first: Callable[[], int]) -> None:
        super().__init__(dataset, num_replicas=1, rank=0, shuffle=False)
        self._first = first

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        first = self._first()
        return iter(range(first, (first // len(self) + 1) * len(self)))


class StepLoader(DataLoader[RawCrops]):
    """A loader whose place is the trainer's step, so a checkpoint only keeps what to compare.

    With `state_dict` Lightning knows that resuming amid an epoch is exact.
    """

    def state_dict(self) -> dict[str, int]:
        data = self.dataset
        assert isinstance(data, StepBatches)
        return {"crops": len(data.index), "batch_size": data.batch_size, "seed": data.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        now = self.state_dict()
        if state != now:
            _log.warning(
                "Resuming on other data than before (%s, now %s): the order of crops differs.",
                state,
                now,
            )


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

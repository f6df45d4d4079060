"""The data of a training run: dense crops of a folder, and whole pictures to validate on."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from pcsr_lightning.data.batches import RawCrops, StepBatches, StepLoader, StepSampler
from pcsr_lightning.data.crop_index import CropIndex
from pcsr_lightning.data.crop_plan import CropPlanner
from pcsr_lightning.data.degradation import BicubicDegradation, Degradation
from pcsr_lightning.data.pairs import PairMaker, validation_pair
from pcsr_lightning.data.picture_buffer import PictureBuffer, buffer_if_wanted
from pcsr_lightning.data.picture_cache import SCALES, PictureCache
from pcsr_lightning.data.split import Split, Splitter, ValRoot, full_size_caches, named_folders
from pcsr_lightning.data.whole_pictures import (
    PicturesToUpscale,
    PredictPicture,
    RawPicture,
    ValidationPictures,
    picture_loaders,
)
from pcsr_lightning.errors import ConfigError, DataError, check_path


class SRDataModule(L.LightningDataModule):
    """Any folder of pictures (sub-folders too) as training data (PCSR, Sec. 4.1).

    The walk of a crop: picture cache -> crop index -> plan of a step -> uint8 windows -> device ->
    degradation there. Training batches are `TrainBatch`, validation ones `ValPicture`.

    Args:
        root: folder of training pictures.
        val_root: folder of validation pictures, or several by name. If None, `val_count` pictures
            of `root` are held out of training for it, always the same ones for the same file names.
        val_count: how many to hold out; at most half of the pictures.
        val_limit: validate on at most this many pictures of each folder, spread evenly over it.
        batch_size: crops of an optimizer step's batch over all devices.
        scale: one scale, or (lowest, highest) for multi-scale training.
        mix_scales: each crop draws a scale of its own; otherwise each batch does.
        val_scale: scale of validation; the highest of `scale` if None.
        lr_crop: side of an LR crop; HR crops are `lr_crop * scale` (the highest).
        stride: HR pixels from one crop to the next.
        min_rest: HR pixels that must remain for one more crop at the far edge.
        downscale_factors: each picture is also used shrunk by these factors.
        augment: flip and transpose at random.
        num_workers: loader processes; 0 is quick when the cache fits into memory.
        on_device: keep the training pictures on the device and cut crops there; None does so on a
            GPU, if they take at most half of its free memory.
        seed: of the order of crops, the augmentation and the scales.
        cache_dir: where picture caches lie; `~/.cache/pcsr_lightning` (or under $XDG_CACHE_HOME)
            if None.
        degradation: makes the LR pictures; MATLAB-style bicubic if None.
        test_root: folder of pictures to test on, or several by name; those of validation if None.
        predict_root: folder of pictures that `predict_dataloader` upscales by `val_scale`.

    Attributes:
        split: the pictures of training and of validation, after `setup`.

    Raises:
        ConfigError: a setting out of range.
        DataError, PictureError: from `prepare_data` and `setup`, when there is nothing to train on.
    """

    def __init__(
        self,
        root: str | Path,
        val_root: ValRoot = None,
        val_count: int = 8,
        val_limit: int | None = None,
        batch_size: int = 16,
        scale: float | Sequence[float] = 4.0,
        val_scale: float | None = None,
        lr_crop: int = 32,
        stride: int = 64,
        min_rest: int = 48,
        downscale_factors: Sequence[float] = SCALES,
        augment: bool = True,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | Path | None = None,
        degradation: Degradation | None = None,
        test_root: ValRoot = None,
        predict_root: str | Path | None = None,
        mix_scales: bool = False,
        on_device: bool | None = None,
    ) -> None:
        super().__init__()
        scales = list(scale) if isinstance(scale, Sequence) else [scale, scale]
        low, high = scales[0], scales[-1]
        _check(
            len(scales) == 2 and 1 <= low <= high,
            "scale",
            scale,
            "one number, or [lowest, highest], of at least 1",
        )
        at_least: dict[str, tuple[float | None, int]] = {
            "batch_size": (batch_size, 1), "lr_crop": (lr_crop, 1), "stride": (stride, 1),
            "min_rest": (min_rest, 0), "val_count": (val_count, 1), "num_workers": (num_workers, 0),
        }  # fmt: skip
        for key, (value, lowest) in at_least.items():
            _check(value is not None and value >= lowest, key, value, f"at least {lowest}")
        for key, value in {"val_limit": val_limit, "val_scale": val_scale}.items():
            _check(value is None or value >= 1, key, value, "at least 1, or null")
        _check(
            len(downscale_factors) > 0 and all(0 < s <= 1 for s in downscale_factors),
            "downscale_factors",
            downscale_factors,
            "a list of factors in (0, 1]",
        )
        check_path("data.root", root, "DIR")
        check_path("data.cache_dir", cache_dir, "DIR")
        check_path("data.predict_root", predict_root, "DIR")
        self.root = Path(root).expanduser()
        self.val_roots = named_folders(val_root)
        self.val_count, self.val_limit = val_count, val_limit
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.val_scale = float(high if val_scale is None else val_scale)
        self.stride, self.min_rest = stride, min_rest
        self.downscale_factors = tuple(float(s) for s in downscale_factors)
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self.degradation = BicubicDegradation() if degradation is None else degradation
        self.scale, self.lr_crop, self.augment = (float(low), float(high)), lr_crop, augment
        self.crop = round(lr_crop * high)
        self.pairs = PairMaker(self.degradation, lr_crop, seed)
        self.test_roots = named_folders(test_root, "data.test_root")
        self.predict_root = None if predict_root is None else Path(predict_root).expanduser()
        self.mix_scales, self.on_device = mix_scales, on_device
        self.split: Split | None = None
        self._buffer: PictureBuffer | None = None
        self._kept_for: torch.device | None = None
        self.test_caches: dict[str, PictureCache] = {}

    # What a source of pictures overrides.

    def train_folder(self) -> Path:
        """The folder of pictures to train on."""
        return self.root

    def val_folders(self) -> dict[str, Path]:
        """The folders to validate on, by name; empty: hold some of the training pictures out."""
        return self.val_roots

    def digests(self) -> dict[str, dict[str, str]]:
        """SHA-256 of each picture's file by its name, below the keys ``train`` and ``valid``.

        Names of several validation folders begin with the folder's.
        """
        self.setup()
        return self._ready().digests()

    # Lightning's hooks.

    def prepare_data(self) -> None:
        """Builds the picture caches that are needed, in one process of each machine."""
        work = None if self.trainer is None else self.trainer.state.fn
        if work == "test" and self.test_roots:
            full_size_caches(self.test_roots, self.cache_dir)
        elif work != "predict":
            self._splitter().open_caches()

    def setup(self, stage: str | None = None) -> None:
        """Opens the caches and numbers the crops of all but the validation pictures."""
        if stage == "test" and self.test_roots:
            self.test_caches = full_size_caches(self.test_roots, self.cache_dir)
        elif stage != "predict" and self.split is None:
            self.split = self._splitter().split()
            limited = self._limited(self.split.val_caches)
            self.split.log(sum(len(pictures) for pictures in limited.values()))

    def train_dataloader(self) -> StepLoader:
        """One item a step. A run given in steps is a single epoch of exactly those; otherwise an
        epoch is one pass over all crops."""
        index = self._ready().index
        rank, world_size, max_steps, accumulate = 0, 1, -1, 1
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            by_epochs = self.trainer.max_epochs not in (None, -1)
            max_steps = -1 if by_epochs else self.trainer.max_steps
            accumulate = self.trainer.accumulate_grad_batches
        one_pass = -(-len(index) // self.batch_size)
        steps = one_pass if max_steps == -1 else max_steps * accumulate
        dataset = self.step_batches(steps, rank=rank, world_size=world_size)
        device = self._device()
        if self._kept_for != device:  # once: loaders are made more than once
            self._buffer = buffer_if_wanted(self.on_device, dataset.cache, dataset.numbers, device)
            self._kept_for = device
        dataset.cut = self._buffer is None
        num_workers = self.num_workers if dataset.cut else 0

        def done() -> int:
            return 0 if self.trainer is None else self.trainer.global_step

        return StepLoader(
            dataset,
            batch_size=None,
            sampler=StepSampler(dataset, done, accumulate),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=device.type == "cuda",
        )

    def step_batches(
        self,
        steps: int,
        *,
        batch_size: int | None = None,
        seed: int | None = None,
        augment: bool | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> StepBatches:
        """The raw batches of training by step number, for loops without a trainer.

        Args:
            steps: length of an epoch.
            batch_size: other than the settings'.
            seed: likewise.
            augment: likewise.
            rank: of this process, which makes its share of each batch.
            world_size: how many processes share a batch.
        """
        found = self._ready()
        planner = CropPlanner(
            found.index,
            self.batch_size if batch_size is None else batch_size,
            self.seed if seed is None else seed,
            self.lr_crop,
            self.scale,
            self.degradation.margin,
            self.augment if augment is None else augment,
            self.mix_scales,
            rank=rank,
            world_size=world_size,
        )
        return StepBatches(found.cache, found.numbers, planner, steps)

    def val_dataloader(self) -> DataLoader[RawPicture] | dict[str, DataLoader[RawPicture]]:
        """Whole pictures, one at a time; a loader for each folder where they have names."""
        return self._loaders(self._ready().val_caches)

    def test_dataloader(self) -> DataLoader[RawPicture] | dict[str, DataLoader[RawPicture]]:
        """The pictures of `test_root`, as those of validation; without it these."""
        return self._loaders(self.test_caches or self._ready().val_caches)

    def predict_dataloader(self) -> DataLoader[PredictPicture]:
        """The pictures of `predict_root`, one at a time.

        Raises:
            ConfigError: there is none.
        """
        if self.predict_root is None:
            raise ConfigError("no pictures to upscale: name their folder with predict_root=DIR.")
        return DataLoader(PicturesToUpscale(self.predict_root, self.val_scale), batch_size=None)

    def _loaders(
        self, caches: Mapping[str, PictureCache]
    ) -> DataLoader[RawPicture] | dict[str, DataLoader[RawPicture]]:
        on_gpu = self._device().type == "cuda"
        return picture_loaders(self._limited(caches), self.num_workers, on_gpu)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Raw pixels, now on the device, become a `TrainBatch` or a `ValPicture`."""
        if isinstance(batch, RawCrops):
            if batch.window_B3SS is None:
                assert self._buffer is not None
                batch = batch._replace(window_B3SS=self._buffer.cut_windows(batch.plan))
            return self.pairs.train_batch(batch)
        if isinstance(batch, RawPicture):
            return validation_pair(batch, self.val_scale, self.degradation, self.seed)
        return batch

    def _ready(self) -> Split:
        if self.split is None:
            raise DataError("The data module is not set up: call prepare_data() and setup() first.")
        return self.split

    def _splitter(self) -> Splitter:
        return Splitter(
            self.train_folder(),
            self.val_folders(),
            self.val_count,
            self.cache_dir,
            self.downscale_factors,
            partial(CropIndex, crop=self.crop, stride=self.stride, min_rest=self.min_rest),
        )

    def _limited(self, caches: Mapping[str, PictureCache]) -> dict[str, ValidationPictures]:
        return {name: ValidationPictures(c, self.val_limit) for name, c in caches.items()}

    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device


def _check(right: bool, key: str, value: object, expected: str) -> None:
    if not right:
        raise ConfigError(f"data.{key}={value}: must be {expected}.")

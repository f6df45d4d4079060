"""The data of a training run: dense crops of a folder, and whole pictures to validate on."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

from pcsr_lightning.data.batches import (
    PicturesToUpscale,
    PredictPicture,
    RawCrops,
    RawPicture,
    StepBatches,
    StepLoader,
    StepSampler,
    ValidationPictures,
)
from pcsr_lightning.data.crop_index import CropIndex
from pcsr_lightning.data.degradation import BicubicDegradation, Degradation
from pcsr_lightning.data.pairs import PairMaker, validation_pair
from pcsr_lightning.data.picture_cache import SCALES, CachedPicture, PictureCache
from pcsr_lightning.data.split import (
    ValRoot,
    all_validated,
    choose_held_out,
    copies_of_validation,
    first_few,
    named_folders,
    training_files,
    warn_skipped,
)
from pcsr_lightning.errors import ConfigError, DataError, check_path
from pcsr_lightning.images import list_pictures

_log = logging.getLogger(__name__)


class SRDataModule(L.LightningDataModule):
    """Any folder of pictures (sub-folders too) as training data (PCSR, Sec. 4.1).

    The walk of a crop: picture cache -> crop index -> uint8 windows by step number -> device ->
    augmentation and degradation there. Training batches are `TrainBatch`, validation ones
    `ValPicture`.

    Args:
        root: folder of training pictures.
        val_root: folder of validation pictures, or several by name. If None, `val_count` pictures
            of `root` are held out of training for it, always the same ones for the same file names.
        val_count: how many to hold out; at most half of the pictures.
        val_limit: validate on at most this many pictures of each folder, spread evenly over it.
        batch_size: crops of an optimizer step's batch over all devices.
        scale: one scale, or (lowest, highest) for multi-scale training, one draw a batch.
        val_scale: scale of validation; the highest of `scale` if None.
        lr_crop: side of an LR crop; HR crops are `lr_crop * scale` (the highest).
        stride: HR pixels from one crop to the next.
        min_rest: HR pixels that must remain for one more crop at the far edge.
        downscale_factors: each picture is also used shrunk by these factors.
        augment: flip and transpose at random.
        num_workers: loader processes; 0 is quick when the cache fits into memory.
        seed: of the order of crops, the augmentation and the scales.
        cache_dir: where picture caches lie; `~/.cache/pcsr_lightning` (or under $XDG_CACHE_HOME)
            if None.
        degradation: makes the LR pictures; MATLAB-style bicubic if None.
        test_root: folder of pictures to test on, or several by name; those of validation if None.
        predict_root: folder of pictures that `predict_dataloader` upscales by `val_scale`.

    Attributes:
        cache: the pictures of `root`, after `setup`.
        val_caches: the validation pictures, by the folders' names; "" for a single one.

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
        _check(batch_size >= 1, "batch_size", batch_size, "at least 1")
        _check(lr_crop >= 1, "lr_crop", lr_crop, "at least 1")
        _check(stride >= 1, "stride", stride, "at least 1")
        _check(min_rest >= 0, "min_rest", min_rest, "at least 0")
        _check(val_count >= 1, "val_count", val_count, "at least 1")
        _check(val_limit is None or val_limit >= 1, "val_limit", val_limit, "at least 1, or null")
        _check(val_scale is None or val_scale >= 1, "val_scale", val_scale, "at least 1, or null")
        _check(num_workers >= 0, "num_workers", num_workers, "at least 0")
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
        self.pairs = PairMaker(self.degradation, (float(low), float(high)), lr_crop, augment, seed)
        self.cache: PictureCache | None = None
        self.test_roots = named_folders(test_root, "data.test_root")
        self.predict_root = None if predict_root is None else Path(predict_root).expanduser()
        self.val_caches: dict[str, PictureCache] = {}
        self.test_caches: dict[str, PictureCache] = {}
        self.index: CropIndex | None = None
        self._numbers: list[int] = []  # the cache's pictures that `index` counts

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
        if self.cache is None:
            raise _NOT_SET_UP
        train = dict.fromkeys(self.cache.pictures[n].source for n in self._numbers)
        valid = {
            f"{folder}/{name}" if folder else name: digest
            for folder, cache in self.val_caches.items()
            for name, digest in cache.digests.items()
        }
        return {"train": {name: self.cache.digests[name] for name in train}, "valid": valid}

    # Lightning's hooks.

    def prepare_data(self) -> None:
        """Builds the picture caches that are needed, in one process of each machine."""
        work = None if self.trainer is None else self.trainer.state.fn
        if work == "test" and self.test_roots:
            self._full_images(self.test_roots)
        elif work != "predict":
            self._open_caches()

    def setup(self, stage: str | None = None) -> None:
        """Opens the caches and numbers the crops of all but the validation pictures."""
        if stage == "test" and self.test_roots:
            self.test_caches = self._full_images(self.test_roots)
            return
        if stage == "predict" or self.index is not None:
            return
        cache, val_caches, held_out = self._open_caches()
        crop, usable = self.pairs.crop, self._usable(cache)
        sources = dict.fromkeys(p.source for p in cache.pictures)
        too_small = [source for source in sources if source not in usable]
        bad_validation = [name for c in val_caches.values() for name in c.unreadable]
        copies = copies_of_validation(cache, val_caches.values(), held_out)
        warn_skipped("unreadable", cache.unreadable)
        warn_skipped("unreadable in validation", bad_validation)
        warn_skipped(f"smaller than a crop of {crop} x {crop} pixels", too_small)
        warn_skipped(
            "that show the same as a validation picture",
            [f"{name} (as {other})" for name, other in copies.items()],
        )
        train = usable - held_out - copies.keys()
        if not train and usable:
            raise all_validated(self.train_folder())
        if not train:
            raise DataError(
                f"{self.train_folder()}: nothing to train on. "
                f"Of {len(sources) + len(cache.unreadable)} pictures {len(too_small)} are smaller "
                f"than a crop of {crop} x {crop} pixels and {len(cache.unreadable)} cannot be "
                "read. Use larger pictures or a smaller data.lr_crop."
            )
        self._numbers = [n for n, p in enumerate(cache.pictures) if p.source in train]
        self.index = self._crops([cache.pictures[n] for n in self._numbers])
        self.cache, self.val_caches = cache, val_caches
        if held_out:
            _info(
                "No data.val_root: %d of %d pictures are held out for validation (%s).",
                len(held_out),
                len(usable),
                first_few(sorted(held_out)),
            )
        _info(
            "Data: %d pictures, %d crops of %d x %d; validation on %d pictures; skipped %d "
            "unreadable, %d too small; cache %s",
            len(train),
            len(self.index),
            crop,
            crop,
            sum(len(pictures) for pictures in self._limited(val_caches).values()),
            len(cache.unreadable) + len(bad_validation),
            len(too_small),
            cache.folder,
        )

    def train_dataloader(self) -> StepLoader:
        """One item a step. A run given in steps is a single epoch of exactly those; otherwise an
        epoch is one pass over all crops."""
        if self.cache is None or self.index is None:
            raise _NOT_SET_UP
        rank, world_size, max_steps, accumulate = 0, 1, -1, 1
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            by_epochs = self.trainer.max_epochs not in (None, -1)
            max_steps = -1 if by_epochs else self.trainer.max_steps
            accumulate = self.trainer.accumulate_grad_batches
        if self.batch_size % world_size:
            raise ConfigError(
                f"data.batch_size={self.batch_size} counts the crops of all devices together and "
                f"cannot be shared out over {world_size}. Use a multiple of {world_size}."
            )
        one_pass = -(-len(self.index) // self.batch_size)
        steps = one_pass if max_steps == -1 else max_steps * accumulate
        dataset = StepBatches(
            self.cache,
            self._numbers,
            self.index,
            self.batch_size,
            self.pairs.margin,
            self.seed,
            steps,
            rank,
            world_size,
        )

        def first() -> int:
            """How many batches are done; an epoch's last optimizer step may have been short."""
            done = 0 if self.trainer is None else self.trainer.global_step
            epoch, within = divmod(done, max(1, -(-steps // accumulate)))
            return epoch * steps + within * accumulate

        return StepLoader(
            dataset,
            batch_size=None,
            sampler=StepSampler(dataset, first),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self._on_gpu(),
        )

    def val_dataloader(self) -> DataLoader[RawPicture] | dict[str, DataLoader[RawPicture]]:
        """Whole pictures, one at a time; a loader for each folder where they have names."""
        return self._loaders(self.val_caches)

    def test_dataloader(self) -> DataLoader[RawPicture] | dict[str, DataLoader[RawPicture]]:
        """The pictures of `test_root`, as those of validation; without it these."""
        return self._loaders(self.test_caches or self.val_caches)

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
        if not caches:
            raise _NOT_SET_UP
        loaders = {
            name: DataLoader(
                pictures,
                batch_size=None,
                shuffle=False,
                num_workers=self.num_workers,
                pin_memory=self._on_gpu(),
            )
            for name, pictures in self._limited(caches).items()
        }
        return loaders.get("", loaders)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Raw pixels, now on the device, become a `TrainBatch` or a `ValPicture`."""
        if isinstance(batch, RawCrops):
            return self.pairs.train_batch(batch)
        if isinstance(batch, RawPicture):
            return validation_pair(batch, self.val_scale, self.degradation, self.seed)
        return batch

    # Helpers.

    def _crops(self, pictures: Sequence[CachedPicture]) -> CropIndex:
        sizes = [(p.height, p.width) for p in pictures]
        return CropIndex(sizes, self.pairs.crop, self.stride, self.min_rest)

    def _usable(self, cache: PictureCache) -> set[str]:
        """The sources that have a crop, at whatever scale."""
        counts = self._crops(cache.pictures).counts
        return {p.source for p, n in zip(cache.pictures, counts, strict=True) if n > 0}

    def _open_caches(self) -> tuple[PictureCache, dict[str, PictureCache], set[str]]:
        """Opens or builds the training and the validation caches; also the names held out."""
        root, folders = self.train_folder(), self.val_folders()
        files = training_files(root, folders.values())
        cache = PictureCache.open_or_build(files, root, self.cache_dir, self.downscale_factors)
        if folders:
            listed = {name: (folder, list_pictures(folder)) for name, folder in folders.items()}
            held_out: set[str] = set()
        else:
            held_out = self._held_out(cache)
            listed = {"": (root, [root / name for name in sorted(held_out)])}
        return cache, self._full_size(listed), held_out

    def _full_images(self, folders: Mapping[str, Path]) -> dict[str, PictureCache]:
        """All pictures of folders, by the folders' names."""
        return self._full_size(
            {n: (folder, list_pictures(folder)) for n, folder in folders.items()}
        )

    def _full_size(self, listed: Mapping[str, tuple[Path, list[Path]]]) -> dict[str, PictureCache]:
        return {
            name: PictureCache.open_or_build(pictures, folder, self.cache_dir, (1.0,))
            for name, (folder, pictures) in listed.items()
        }

    def _held_out(self, cache: PictureCache) -> set[str]:
        chosen = choose_held_out(self._usable(cache), cache, self.val_count)
        if not chosen:
            raise DataError(
                f"{self.root}: {len(self._usable(cache))} pictures of at least {self.pairs.crop} x "
                f"{self.pairs.crop} pixels are too few to train on one and validate on another. "
                "Add pictures, or name a validation folder with data.val_root=DIR."
            )
        return chosen

    def _limited(self, caches: Mapping[str, PictureCache]) -> dict[str, ValidationPictures]:
        return {name: ValidationPictures(c, self.val_limit) for name, c in caches.items()}

    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


_NOT_SET_UP = DataError("The data module is not set up: call prepare_data() and setup() first.")
_info = rank_zero_only(_log.info)


def _check(right: bool, key: str, value: object, expected: str) -> None:
    if not right:
        raise ConfigError(f"data.{key}={value}: must be {expected}.")

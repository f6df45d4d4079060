"""The data of a training run: dense crops of a folder, and whole pictures to validate on."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

from pcsr_lightning.data.batches import (
    RawCrops,
    RawPicture,
    StepBatches,
    StepLoader,
    StepSampler,
    ValidationPictures,
)
from pcsr_lightning.data.crop_index import CropIndex
from pcsr_lightning.data.degradation import Degradation, validation_pair
from pcsr_lightning.data.picture_cache import SCALES, CachedPicture, PictureCache
from pcsr_lightning.errors import ConfigError, DataError
from pcsr_lightning.images import list_pictures

_log = logging.getLogger(__name__)


class SRDataModule(L.LightningDataModule):
    """Any folder of pictures (sub-folders too) as training data (PCSR, Sec. 4.1).

    The walk of a crop: picture cache -> crop index -> uint8 windows by step number -> device ->
    augmentation and degradation there. Training batches are `TrainBatch`, validation ones
    `ValPicture`.

    Args:
        root: folder of training pictures.
        val_root: folder of validation pictures. If None, `val_count` pictures of `root` are held
            out of training for it, always the same ones for the same file names.
        val_count: how many to hold out; at most half of the pictures.
        val_limit: validate on at most this many pictures, spread evenly over the list.
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

    Raises:
        ConfigError: a setting out of range.
        DataError, PictureError: from `prepare_data` and `setup`, when there is nothing to train on.
    """

    def __init__(
        self,
        root: str | Path,
        val_root: str | Path | None = None,
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
        self.root = Path(root).expanduser()
        self.val_root = None if val_root is None else Path(val_root).expanduser()
        self.val_count, self.val_limit = val_count, val_limit
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.val_scale = float(high if val_scale is None else val_scale)
        self.stride, self.min_rest = stride, min_rest
        self.downscale_factors = tuple(float(s) for s in downscale_factors)
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self.degradation = Degradation((float(low), float(high)), lr_crop, augment, seed)
        self.cache: PictureCache | None = None
        self.val_cache: PictureCache | None = None
        self.index: CropIndex | None = None
        self._numbers: list[int] = []  # the cache's pictures that `index` counts

    # What a source of pictures overrides.

    def train_folder(self) -> Path:
        """The folder of pictures to train on."""
        return self.root

    def val_folder(self) -> Path | None:
        """The folder of pictures to validate on; None: hold some of the training pictures out."""
        return self.val_root

    def digests(self) -> dict[str, dict[str, str]]:
        """SHA-256 of each picture's file by its name, below the keys ``train`` and ``valid``."""
        self.setup()
        if self.cache is None or self.val_cache is None:
            raise _NOT_SET_UP
        train = dict.fromkeys(self.cache.pictures[n].source for n in self._numbers)
        digests = self.cache.digests
        return {"train": {name: digests[name] for name in train}, "valid": self.val_cache.digests}

    # Lightning's hooks.

    def prepare_data(self) -> None:
        """Builds the picture caches, in one process of each machine."""
        self._open_caches()

    def setup(self, stage: str | None = None) -> None:
        """Opens the caches and numbers the crops of all but the validation pictures."""
        if self.index is not None:
            return
        cache, val_cache, held_out = self._open_caches()
        crop = self.degradation.crop
        usable = self._usable(cache)
        sources = dict.fromkeys(p.source for p in cache.pictures)
        too_small = [source for source in sources if source not in usable]
        _warn_skipped("unreadable", cache.unreadable)
        _warn_skipped("unreadable in validation", val_cache.unreadable)
        _warn_skipped(f"smaller than a crop of {crop} x {crop} pixels", too_small)
        train = usable - held_out
        if not train:
            raise DataError(
                f"{self.train_folder()}: nothing to train on. "
                f"Of {len(sources) + len(cache.unreadable)} pictures {len(too_small)} are smaller "
                f"than a crop of {crop} x {crop} pixels and {len(cache.unreadable)} cannot be "
                "read. Use larger pictures or a smaller data.lr_crop."
            )
        self._numbers = [n for n, p in enumerate(cache.pictures) if p.source in train]
        self.index = self._crops([cache.pictures[n] for n in self._numbers])
        self.cache, self.val_cache = cache, val_cache
        if held_out:
            _info(
                "No data.val_root: %d of %d pictures are held out for validation (%s).",
                len(held_out),
                len(usable),
                _first(sorted(held_out)),
            )
        _info(
            "Data: %d pictures, %d crops of %d x %d; validation on %d pictures; skipped %d "
            "unreadable, %d too small; cache %s",
            len(train),
            len(self.index),
            crop,
            crop,
            len(ValidationPictures(val_cache)),
            len(cache.unreadable) + len(val_cache.unreadable),
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
            self.degradation.margin,
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

    def val_dataloader(self) -> DataLoader[RawPicture]:
        """Whole pictures, one at a time."""
        if self.val_cache is None:
            raise _NOT_SET_UP
        return DataLoader(
            ValidationPictures(self.val_cache),
            batch_size=None,
            shuffle=False,
            num_workers=self.num_workers,
            pin_memory=self._on_gpu(),
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Raw pixels, now on the device, become a `TrainBatch` or a `ValPicture`."""
        if isinstance(batch, RawCrops):
            return self.degradation.train_batch(batch)
        if isinstance(batch, RawPicture):
            return validation_pair(batch, self.val_scale)
        return batch

    # Helpers.

    def _crops(self, pictures: Sequence[CachedPicture]) -> CropIndex:
        sizes = [(p.height, p.width) for p in pictures]
        return CropIndex(sizes, self.degradation.crop, self.stride, self.min_rest)

    def _usable(self, cache: PictureCache) -> set[str]:
        """The sources that have a crop, at whatever scale."""
        counts = self._crops(cache.pictures).counts
        return {p.source for p, n in zip(cache.pictures, counts, strict=True) if n > 0}

    def _open_caches(self) -> tuple[PictureCache, PictureCache, set[str]]:
        """Opens or builds the training and the validation cache; also the names held out."""
        root, val_root = self.train_folder(), self.val_folder()
        files = list_pictures(root)
        val_files = [] if val_root is None else list_pictures(val_root)
        # A validation folder may lie inside the training folder.
        validation = {file.resolve() for file in val_files}
        kept = [file for file in files if file.resolve() not in validation]
        if not kept:
            raise DataError(
                f"{root}: every picture here is also a validation picture. Give different "
                "folders as data.root and data.val_root."
            )
        cache = PictureCache.open_or_build(kept, root, self.cache_dir, self.downscale_factors)
        held_out: set[str] = set()
        if val_root is None:
            held_out = self._held_out(sorted(self._usable(cache)))
            val_root, val_files = root, [root / name for name in sorted(held_out)]
        val_files = _spread(val_files, self.val_limit)
        val_cache = PictureCache.open_or_build(val_files, val_root, self.cache_dir, (1.0,))
        return cache, val_cache, held_out

    def _held_out(self, names: list[str]) -> set[str]:
        if len(names) < 2:
            raise DataError(
                f"{self.root}: {len(names)} pictures of at least {self.degradation.crop} x "
                f"{self.degradation.crop} pixels are too few to train on one and validate on "
                "another. Add pictures, or name a validation folder with data.val_root=DIR."
            )
        # By a hash of the name: adding a picture does not reshuffle the choice.
        names = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
        return set(names[: min(self.val_count, len(names) // 2)])

    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


_NOT_SET_UP = DataError("The data module is not set up: call prepare_data() and setup() first.")
_info = rank_zero_only(_log.info)


def _check(right: bool, key: str, value: object, expected: str) -> None:
    if not right:
        raise ConfigError(f"data.{key}={value}: must be {expected}.")


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


@rank_zero_only
def _warn_skipped(what: str, names: Iterable[str]) -> None:
    """Counts and names the first few."""
    listed = list(names)
    if listed:
        _log.warning("Skipped %d %s: %s", len(listed), what, _first(listed))


def _spread(files: list[Path], limit: int | None) -> list[Path]:
    if limit is None or len(files) <= limit:
        return files
    return [files[int(n)] for n in np.linspace(0, len(files) - 1, limit).round()]

"""Which pictures are trained on and which validated on: never the same one, whatever its names."""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from pcsr_lightning.data.crop_index import CropIndex
from pcsr_lightning.data.picture_cache import CachedPicture, PictureCache
from pcsr_lightning.errors import ConfigError, DataError, check_path
from pcsr_lightning.images import list_pictures

_log = logging.getLogger(__name__)

ValRoot = str | Path | Mapping[str, str | Path] | None


def named_folders(val_root: ValRoot, key: str = "data.val_root") -> dict[str, Path]:
    """A setting `key` as folders by name: "" for a plain path; empty if there is none.

    Raises:
        ConfigError: an empty path, or a mapping without a folder.
    """
    if val_root is None:
        return {}
    given = val_root if isinstance(val_root, Mapping) else {"": val_root}
    if not given:
        raise ConfigError(f"{key}={{}}: name a folder, or several as {{NAME: DIR, ...}}")
    for name, folder in given.items():
        check_path(f"{key}.{name}" if name else key, folder, "DIR")
    return {str(name): Path(folder).expanduser() for name, folder in given.items()}


@dataclass(frozen=True)
class Split:
    """The pictures of a run.

    Attributes:
        cache: those of the training folder.
        val_caches: those to validate on, by the folders' names; "" for a single one.
        numbers: which pictures of `cache` are trained on, in the order of `index`.
        index: their crops.
        too_small: how many pictures of `cache` have no crop.
    """

    cache: PictureCache
    val_caches: dict[str, PictureCache]
    numbers: list[int]
    index: CropIndex
    too_small: int

    def digests(self) -> dict[str, dict[str, str]]:
        """SHA-256 of each picture's file by its name, below the keys ``train`` and ``valid``.

        Names of several validation folders begin with the folder's.
        """
        train = dict.fromkeys(self.cache.pictures[n].source for n in self.numbers)
        valid = {
            f"{folder}/{name}" if folder else name: digest
            for folder, cache in self.val_caches.items()
            for name, digest in cache.digests.items()
        }
        return {"train": {name: self.cache.digests[name] for name in train}, "valid": valid}

    def log(self, validated: int) -> None:
        """Says in one line what was found, and on how many pictures is validated."""
        crop = self.index.crop
        _info(
            "Data: %d pictures, %d crops of %d x %d; validation on %d pictures; skipped %d "
            "unreadable, %d too small; cache %s",
            len({self.cache.pictures[n].source for n in self.numbers}),
            len(self.index),
            crop,
            crop,
            validated,
            sum(len(c.unreadable) for c in (self.cache, *self.val_caches.values())),
            self.too_small,
            self.cache.folder,
        )


class Splitter:
    """Opens or builds the caches of a run's pictures, and chooses what is trained on.

    Args:
        root: folder of training pictures.
        val_folders: folders of validation pictures by name; if empty, some of `root` are held out.
        val_count: how many; at most half of the pictures.
        cache_dir: where caches lie.
        factors: training pictures are also used shrunk by these.
        crops: numbers the crops of pictures of these sizes.
    """

    def __init__(
        self,
        root: Path,
        val_folders: Mapping[str, Path],
        val_count: int,
        cache_dir: Path | None,
        factors: Sequence[float],
        crops: Callable[[Sequence[tuple[int, int]]], CropIndex],
    ) -> None:
        self.root, self.val_folders, self.val_count = root, val_folders, val_count
        self.cache_dir, self.factors, self.crops = cache_dir, factors, crops

    def open_caches(self) -> tuple[PictureCache, dict[str, PictureCache], set[str]]:
        """The caches of training and validation; also the names held out of training."""
        files = training_files(self.root, self.val_folders.values())
        cache = PictureCache.open_or_build(files, self.root, self.cache_dir, self.factors)
        if self.val_folders:
            return cache, full_size_caches(self.val_folders, self.cache_dir), set()
        held_out = self._held_out(cache)
        listed = [self.root / name for name in sorted(held_out)]
        val_cache = PictureCache.open_or_build(listed, self.root, self.cache_dir, (1.0,))
        return cache, {"": val_cache}, held_out

    def split(self) -> Split:
        """Opens the caches, numbers the crops, and says what was found.

        Raises:
            DataError, PictureError: there is nothing to train on, or to validate on.
        """
        cache, val_caches, held_out = self.open_caches()
        usable = self._usable(cache)
        crop = self.crops([]).crop
        train = trained_on(cache, usable, val_caches.values(), held_out, self.root, crop)
        if held_out:
            _info(
                "No data.val_root: %d of %d pictures are held out for validation (%s).",
                len(held_out),
                len(usable),
                first_few(sorted(held_out)),
            )
        numbers = [n for n, p in enumerate(cache.pictures) if p.source in train]
        index = self._index([cache.pictures[n] for n in numbers])
        too_small = len({p.source for p in cache.pictures} - usable)
        return Split(cache, val_caches, numbers, index, too_small)

    def _index(self, pictures: Sequence[CachedPicture]) -> CropIndex:
        return self.crops([(p.height, p.width) for p in pictures])

    def _usable(self, cache: PictureCache) -> set[str]:
        """The sources that have a crop, at whatever scale."""
        counts = self._index(cache.pictures).counts
        return {p.source for p, n in zip(cache.pictures, counts, strict=True) if n > 0}

    def _held_out(self, cache: PictureCache) -> set[str]:
        usable = self._usable(cache)
        chosen = choose_held_out(usable, cache, self.val_count)
        if not chosen:
            crop = self.crops([]).crop
            raise DataError(
                f"{self.root}: {len(usable)} pictures of at least {crop} x {crop} pixels are too "
                "few to train on one and validate on another. "
                "Add pictures, or name a validation folder with data.val_root=DIR."
            )
        return chosen


def full_size_caches(
    folders: Mapping[str, Path], cache_dir: Path | None
) -> dict[str, PictureCache]:
    """All pictures of folders, by the folders' names."""
    return {
        name: PictureCache.open_or_build(list_pictures(folder), folder, cache_dir, (1.0,))
        for name, folder in folders.items()
    }


def training_files(root: Path, val_folders: Iterable[Path]) -> list[Path]:
    """The pictures of `root` that lie in no validation folder; one may lie inside `root`.

    Raises:
        DataError: all of them do.
        PictureError: no such folder, or no picture in it.
    """
    validation = {file.resolve() for folder in val_folders for file in list_pictures(folder)}
    kept = [file for file in list_pictures(root) if file.resolve() not in validation]
    if not kept:
        raise all_validated(root)
    return kept


def all_validated(root: Path) -> DataError:
    """What is wrong where nothing is left to train on."""
    return DataError(
        f"{root}: every picture here is also a validation picture. Give different folders as "
        "data.root and data.val_root."
    )


def choose_held_out(names: Iterable[str], cache: PictureCache, count: int) -> set[str]:
    """`count` of the pictures, but at most half of them; copies of one picture are one."""
    # By a hash of the name: adding a picture does not reshuffle the choice.
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    different = {cache.contents[name]: name for name in reversed(ordered)}
    chosen = [name for name in ordered if different[cache.contents[name]] == name]
    return set(chosen[: min(count, len(chosen) // 2)])


def copies_of_validation(
    cache: PictureCache, val_caches: Iterable[PictureCache], held_out: set[str]
) -> dict[str, str]:
    """Training pictures with the same pixels as a validation picture, and what that is called."""
    validated = {content: name for c in val_caches for name, content in c.contents.items()}
    return {
        name: validated[content]
        for name, content in cache.contents.items()
        if content in validated and name not in held_out
    }


def trained_on(
    cache: PictureCache,
    usable: set[str],
    val_caches: Collection[PictureCache],
    held_out: set[str],
    root: Path,
    crop: int,
) -> set[str]:
    """The names of the pictures to train on; what is left out is said in warnings.

    Args:
        cache: the pictures of `root`.
        usable: those that have a crop, at whatever scale.
        val_caches: the pictures that are validated on.
        held_out: pictures of `cache` among them.
        root: the folder, for messages.
        crop: side of a crop, for messages.

    Raises:
        DataError: none is left.
    """
    sources = dict.fromkeys(p.source for p in cache.pictures)
    too_small = [source for source in sources if source not in usable]
    copies = copies_of_validation(cache, val_caches, held_out)
    warn_skipped("unreadable", cache.unreadable)
    warn_skipped("unreadable in validation", [n for c in val_caches for n in c.unreadable])
    warn_skipped(f"smaller than a crop of {crop} x {crop} pixels", too_small)
    warn_skipped(
        "that show the same as a validation picture",
        [f"{name} (as {other})" for name, other in copies.items()],
    )
    train = usable - held_out - copies.keys()
    if not train and usable:
        raise all_validated(root)
    if not train:
        raise DataError(
            f"{root}: nothing to train on. "
            f"Of {len(sources) + len(cache.unreadable)} pictures {len(too_small)} are smaller "
            f"than a crop of {crop} x {crop} pixels and {len(cache.unreadable)} cannot be "
            "read. Use larger pictures or a smaller data.lr_crop."
        )
    return train


def first_few(names: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


@rank_zero_only
def warn_skipped(what: str, names: Iterable[str]) -> None:
    """Counts what is left out, and names the first few."""
    listed = list(names)
    if listed:
        _log.warning("Skipped %d %s: %s", len(listed), what, first_few(listed))


_info = rank_zero_only(_log.info)

"""Which pictures are trained on and which validated on: never the same one, whatever its names."""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from pcsr_lightning.data.picture_cache import PictureCache
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

"""One uint8 memory map of all training pictures at all their scales, and its JSON index.

Pixels lie in the file as (h, w, 3), picture after picture, so that a crop is a few contiguous runs.
"""

import hashlib
import json
import logging
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from rich import get_console
from rich.progress import track
from torch import Tensor

from pcsr_lightning.atomic_io import atomic_write, default_cache_folder
from pcsr_lightning.errors import DataError, PictureError
from pcsr_lightning.images import bicubic, read_rgb8

SCALES = (1.0, 0.9, 0.8, 0.7, 0.6)
_VERSION = 2  # of the file format and of how pictures are decoded and shrunk
_PIXELS, _INDEX, _DIGESTS = "pixels.u8", "index.json", "digests.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedPicture:
    """One picture at one scale: where its (height, width, 3) bytes start in the memory map."""

    source: str
    scale: float
    height: int
    width: int
    offset: int


class PictureCache:
    """The pictures of a folder, decoded once. Use `open`, `build` or `open_or_build`.

    Attributes:
        folder: where the cache lies.
        pictures: every picture at every scale, a source's scales one after the other.
        contents: source name -> hash of its pixels, the same for the same picture in two files.
        unreadable: source name -> reason, for files that could not be decoded.
        digests: source name -> SHA-256 of the file, for a cache of `open_or_build`.
    """

    def __init__(
        self,
        folder: Path,
        pictures: Sequence[CachedPicture],
        contents: dict[str, str],
        unreadable: dict[str, str],
    ) -> None:
        self.folder = folder
        self.pictures = list(pictures)
        self.contents = dict(contents)
        self.unreadable = dict(unreadable)
        self.digests: dict[str, str] = {}
        self._bytes: NDArray[np.uint8] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps the file itself; pickling the map would copy all its bytes.
        return {**self.__dict__, "_bytes": None}

    def pixels(self, number: int) -> NDArray[np.uint8]:
        """Picture `number` of `pictures`, as a read-only (h, w, 3) view of the memory map."""
        if self._bytes is None:
            # As a plain array: slicing a np.memmap is several times slower.
            self._bytes = np.asarray(np.memmap(self.folder / _PIXELS, np.uint8, "r"))
        at = self.pictures[number]
        end = at.offset + at.height * at.width * 3
        return self._bytes[at.offset : end].reshape(at.height, at.width, 3)

    @classmethod
    def open(cls, folder: str | Path) -> "PictureCache":
        """Opens a finished cache.

        Raises:
            DataError: there is none, or it is damaged or of another version.
        """
        folder = Path(folder)
        try:
            index = json.loads((folder / _INDEX).read_text("utf-8"))
            pictures = [CachedPicture(**entry) for entry in index["pictures"]]
            expected = sum(p.height * p.width * 3 for p in pictures)
            complete = (folder / _PIXELS).stat().st_size == expected
            right_version = index["version"] == _VERSION
            contents, unreadable = dict(index["contents"]), dict(index["unreadable"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder}: no picture cache here, or a damaged one ({error})."
            ) from error
        if not (complete and right_version):
            raise DataError(
                f"{folder}: this picture cache is damaged or of another version. Delete the "
                "folder; it is rebuilt at the next start."
            )
        return cls(folder, pictures, contents, unreadable)

    @classmethod
    def build(
        cls,
        files: Sequence[Path],
        folder: str | Path,
        scales: Sequence[float] = SCALES,
        root: Path | None = None,
    ) -> "PictureCache":
        """Decodes and shrinks `files` into a new cache at `folder`, which appears when complete.

        Files that cannot be read are skipped, counted and named in a warning. When two processes
        build the same cache at once, the first to finish wins and both use it.

        Args:
            files: picture files.
            folder: the cache's own folder; its parents are made.
            scales: what to shrink each picture by (bicubic, antialiased, rounded to 8 bit).
            root: source names are relative to it.

        Raises:
            DataError: no file is readable, or the cache cannot be written.
        """
        folder = Path(folder)
        part = folder.with_name(f".{folder.name}.part-{secrets.token_hex(4)}")
        try:
            part.mkdir(parents=True)
            pictures, contents, unreadable = _write_pixels(files, part / _PIXELS, scales, root)
            if not pictures:
                first, reason = next(iter(unreadable.items()), ("", "no files"))
                raise DataError(
                    f"None of the {len(files)} pictures can be read. The first, {first}: {reason}"
                )
            index = {
                "version": _VERSION,
                "pictures": [asdict(p) for p in pictures],
                "contents": contents,
                "unreadable": unreadable,
            }
            (part / _INDEX).write_text(json.dumps(index), "utf-8")
            try:
                part.rename(folder)
            except OSError:
                if not (folder / _INDEX).is_file():  # not a cache finished meanwhile by another
                    raise
        except OSError as error:
            raise DataError(
                f"{folder}: cannot write the picture cache ({error.strerror or error}). Name a "
                "folder on a disk with room with data.cache_dir=DIR."
            ) from error
        finally:  # after Ctrl-C too
            shutil.rmtree(part, ignore_errors=True)
        return cls.open(folder)

    @classmethod
    def open_or_build(
        cls,
        files: Sequence[Path],
        root: Path,
        base: Path | None = None,
        scales: Sequence[float] = SCALES,
    ) -> "PictureCache":
        """The cache of these files as they are now, built in `base` if it is not there yet.

        The folder's name holds a fingerprint of the files' names, sizes and times, so a changed
        picture folder gets a new cache.

        Raises:
            DataError: as for `build`.
        """
        base = default_cache_folder() if base is None else base
        folder = base / f"{root.resolve().name}-{fingerprint(files, root, scales)}"
        cache: PictureCache | None = None
        if (folder / _INDEX).is_file():
            try:
                cache = cls.open(folder)
            except DataError as error:
                _log.warning("%s Rebuilding it.", error)
                shutil.rmtree(folder, ignore_errors=True)
        if cache is None:
            _log.info("Building the picture cache %s of %d pictures.", folder, len(files))
            cache = cls.build(files, folder, scales, root)
        cache.digests = _digests(cache, root)
        return cache


def fingerprint(files: Sequence[Path], root: Path, scales: Sequence[float]) -> str:
    """16 hex digits that change when a file, its size or time, a scale or the format changes."""
    digest = hashlib.sha256(json.dumps([_VERSION, str(root.resolve()), *scales]).encode())
    for file in files:
        status = file.stat()
        line = [_name(file, root), status.st_size, status.st_mtime_ns]
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()[:16]


def _digests(cache: PictureCache, root: Path) -> dict[str, str]:
    """SHA-256 of the files behind a cache: read once, as long as the files are the cache's own."""
    path = cache.folder / _DIGESTS
    if path.is_file():
        found: dict[str, str] = json.loads(path.read_text("utf-8"))
        return found
    found = {}
    for name in dict.fromkeys(picture.source for picture in cache.pictures):
        try:
            with (root / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{root / name}: cannot be read ({error.strerror}).") from error
    with suppress(OSError):  # a cache that only its owner may write: read again the next time
        atomic_write(path, json.dumps(found).encode())
    return found


def _name(file: Path, root: Path | None) -> str:
    inside = root is not None and file.is_relative_to(root)
    return str(file.relative_to(root) if root is not None and inside else file)


def _write_pixels(
    files: Sequence[Path], path: Path, scales: Sequence[float], root: Path | None
) -> tuple[list[CachedPicture], dict[str, str], dict[str, str]]:
    pictures: list[CachedPicture] = []
    contents: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    with path.open("wb") as out:
        quiet = not get_console().is_terminal
        for file in track(files, "Caching pictures", transient=True, disable=quiet):
            name = _name(file, root)
            try:
                rgb_3hw = read_rgb8(file)
            except PictureError as error:
                unreadable[name] = str(error)
                continue
            contents[name] = _pixel_hash(rgb_3hw)
            pictures += [_append(out, rgb_3hw, name, scale) for scale in scales]
    return pictures, contents, unreadable


def _pixel_hash(rgb_3hw: Tensor) -> str:
    digest = hashlib.blake2b(json.dumps(list(rgb_3hw.shape)).encode(), digest_size=16)
    digest.update(rgb_3hw.contiguous().flatten().numpy().data)
    return digest.hexdigest()


def _append(out: BinaryIO, rgb_3hw: Tensor, name: str, scale: float) -> CachedPicture:
    height, width = (max(1, round(side * scale)) for side in rgb_3hw.shape[1:])
    if (height, width) != rgb_3hw.shape[1:]:
        shrunk = bicubic(rgb_3hw.float(), (height, width))
        rgb_3hw = shrunk.round_().clamp_(0, 255).byte()
    at = CachedPicture(name, scale, height, width, out.tell())
    out.write(np.ascontiguousarray(rgb_3hw.permute(1, 2, 0).numpy()).data)
    return at

"""Which directory of a TIFF file is the picture, as some begin with a thumbnail.

libvips opens the first page, and tells nothing of NewSubfileType. Without this a thumbnail would be
upscaled in place of the picture, and the preview in place of a camera's raw data.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pcsr_lightning.images.pillow import pillow_errors

_NEW_KIND, _OLD_KIND, _WIDTH, _HEIGHT, _PHOTOMETRIC = 0xFE, 0xFF, 0x100, 0x101, 0x106
_MAKER, _SUB_IFDS, _DNG_VERSION = 0x10F, 0x14A, 0xC612
_REDUCED_OR_MASK, _OLD_REDUCED = 1 | 4, 2
_RAW_DATA = {32803, 34892}  # colour filter array, linear raw
_RAW_KINDS = {
    "NIKON": "NEF", "SONY": "ARW", "PENTAX": "PEF", "SAMSUNG": "SRW", "HASSELBLAD": "3FR",
}  # fmt: skip
_WANTED = (
    *(_NEW_KIND, _OLD_KIND, _WIDTH, _HEIGHT, _PHOTOMETRIC),
    *(_MAKER, _SUB_IFDS, _DNG_VERSION),
)
_MOST_DIRECTORIES = 32
Tags = dict[int, Any]


@dataclass(frozen=True)
class TiffPage:
    """A directory of a TIFF file.

    Attributes:
        at: its offset in the file.
        page: its number among the pages, as libvips counts.
        sub_ifd: its number among that page's SubIFDs; -1 for the page itself.
        tags: those that say what it is.
    """

    at: int
    page: int
    sub_ifd: int
    tags: Tags

    @property
    def is_full(self) -> bool:
        """Whether it is neither a smaller version of another picture nor a mask for one."""
        kind = self.tags.get(_NEW_KIND)
        if isinstance(kind, int):
            return not kind & _REDUCED_OR_MASK
        return self.tags.get(_OLD_KIND) != _OLD_REDUCED

    @property
    def area(self) -> int:
        """Its number of pixels."""
        h, w = self.tags.get(_HEIGHT), self.tags.get(_WIDTH)
        return h * w if isinstance(h, int) and isinstance(w, int) else 0


@dataclass(frozen=True)
class TiffPages:
    """The pages of a TIFF file.

    Attributes:
        picture: the largest full picture if the first page is none, else the first page.
        several: whether there are more full pictures.
        raw: what kind of a camera's raw file it is; None if it is none.
    """

    picture: TiffPage
    several: bool
    raw: str | None


def find_pages(file: BinaryIO, head: bytes) -> TiffPages:
    """Looks at a TIFF file's directories.

    Args:
        file: seekable.
        head: its header.

    Raises:
        ValueError: the first directory is damaged.
    """
    with pillow_errors():
        pages = _chain(file, head)
        first = pages[0]
        found = pages + _sub_ifds(file, head, first)
    full = [page for page in found if page.is_full]
    picture = first if first.is_full or not full else max(full, key=lambda page: page.area)
    raw = any(page.tags.get(_PHOTOMETRIC) in _RAW_DATA for page in found)
    several = sum(page.is_full for page in pages) > 1
    return TiffPages(picture, several, _raw_kind(first.tags) if raw else None)


def _raw_kind(tags: Tags) -> str:
    if _DNG_VERSION in tags:
        return "DNG"
    maker = str(tags.get(_MAKER, "")).upper()
    return next((kind for name, kind in _RAW_KINDS.items() if maker.startswith(name)), "camera's")


def _chain(file: BinaryIO, head: bytes) -> list[TiffPage]:
    """The pages, each of which names the next, as far as they can be read."""
    pages: list[TiffPage] = []
    at = int(ImageFileDirectory_v2(head).next)
    while at and len(pages) < _MOST_DIRECTORIES and at not in {page.at for page in pages}:
        tags, after = load_directory(file, head, at, only=_WANTED)
        if pages and not tags:
            break
        pages.append(TiffPage(at, len(pages), -1, tags))
        at = after
    if not pages:
        raise ValueError("there is no page in it")
    return pages


def _sub_ifds(file: BinaryIO, head: bytes, page: TiffPage) -> list[TiffPage]:
    found = page.tags.get(_SUB_IFDS, ())
    offsets = found[:_MOST_DIRECTORIES] if isinstance(found, tuple) else (found,)
    loaded = (
        TiffPage(at, page.page, number, load_directory(file, head, at, only=_WANTED)[0])
        for number, at in enumerate(offsets)
        if isinstance(at, int)
    )
    return [sub for sub in loaded if sub.tags]


def load_directory(
    file: BinaryIO,
    head: bytes,
    at: int,
    group: int | None = None,
    only: Collection[int] | None = None,
) -> tuple[Tags, int]:
    """The tags of a directory that Pillow can make sense of, and the next one's offset or 0.

    Args:
        file: seekable.
        head: its header.
        at: the directory's offset.
        group: the tag that points to it, for those below others.
        only: tags to look at; all of them if not given.

    Raises:
        ValueError: it cannot be read at all.
    """
    found: Tags = {}
    with pillow_errors():
        directory = ImageFileDirectory_v2(head, group=group)
        file.seek(at)
        directory.load(file)
    for tag in directory if only is None else set(directory) & set(only):
        with suppress(ValueError), pillow_errors():  # a value that Pillow cannot make sense of
            found[tag] = directory[tag]
    return found, int(directory.next or 0)

"""EXIF blocks and XMP packets brought up to date: orientation, sizes, resolution, thumbnail."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from io import BytesIO

from pcsr_lightning.images import tags
from pcsr_lightning.images.tags import Entry, TagError, TagReader

_MARK = b"Exif\0\0"
_THUMBNAIL_AT, _THUMBNAIL_SIZE = 0x201, 0x202


def bare(block: bytes) -> bytes:
    """An EXIF block from its TIFF header on, without the mark that some formats put before it."""
    return block.removeprefix(_MARK)


def resolution_of(exif: bytes | None) -> tuple[float, float] | None:
    """Pixels per mm, across and down; None if the block is damaged or does not say."""
    try:
        reader = TagReader(BytesIO(exif or b""))
        return reader.resolution(reader.directory(reader.first)[0])
    except TagError:
        return None


def orientation_of(exif: bytes | None) -> int:
    """1 to 8, EXIF's number for how the picture is to be turned; 1 if the block does not say."""
    try:
        reader = TagReader(BytesIO(exif or b""))
        found = reader.whole(reader.directory(reader.first)[0][tags.ORIENTATION])
    except (KeyError, TagError):
        return 1
    return found if 1 <= found <= 8 else 1


def finer(
    rounded: tuple[float, float] | None, exact: tuple[float, float] | None
) -> tuple[float, float] | None:
    """The resolution of a file that says it twice: the second where the first is it in whole dpi.

    Args:
        rounded: pixels per mm, from the file's own header.
        exact: the same from EXIF.
    """
    if rounded is None or exact is None:
        return rounded or exact
    off = max(abs(a - b) for a, b in zip(rounded, exact, strict=True)) * 25.4
    return exact if off <= 0.5 else rounded


def up_to_date(
    exif: bytes | None,
    size: tuple[int, int],
    resolution: tuple[float, float] | None,
    hold_resolution: bool,
) -> bytes | None:
    """The EXIF block for an upright picture of `size`, without thumbnail, all else as it was.

    Values are changed where they lie; nothing moves, maker notes stay valid.

    Args:
        exif: the block, or None.
        size: (h, w) in pixels.
        resolution: pixels per mm, across and down.
        hold_resolution: the format has no other place for it, so entries are added (and a
            block is made).

    Raises:
        TagError: the block is damaged.
    """
    if exif is None:
        return _resolution_only(resolution) if hold_resolution else None
    reader = TagReader(BytesIO(exif))
    if reader.big:
        raise TagError("BigTIFF inside EXIF")
    first, next_at = reader.directory(reader.first)
    data = bytearray(exif)
    order, (h, w) = reader.order, size
    _set_whole(data, first.get(tags.ORIENTATION), 1, order)
    below = reader.below(first, tags.EXIF)
    for entries, across, down in (
        (first, tags.WIDTH, tags.HEIGHT),
        (below, tags.PIXELS_ACROSS, tags.PIXELS_DOWN),
    ):
        _set_whole(data, entries.get(across), w, order)
        _set_whole(data, entries.get(down), h, order)
    changed = resolution is not None and _set_resolution(data, first, resolution, order)
    used = [*first.values(), *below.values(), *reader.below(first, tags.GPS).values()]
    _drop_thumbnail(data, reader, next_at, used)
    if resolution is not None and not changed and hold_resolution:
        # From the block as it is now: old entries may have been changed above.
        reader = TagReader(BytesIO(bytes(data)))
        _add_entries(data, reader, tags.resolution_entries(resolution, order))
    return bytes(data)


def upright_xmp(xmp: bytes, size: tuple[int, int]) -> bytes:
    """The XMP packet for an upright picture of (h, w) pixels, without thumbnails."""
    h, w = size
    for name, value in (
        (b"tiff:Orientation", 1),
        (b"tiff:ImageWidth", w),
        (b"tiff:ImageLength", h),
        (b"exif:PixelXDimension", w),
        (b"exif:PixelYDimension", h),
    ):
        number = str(value).encode()
        xmp = re.sub(name + rb'(\s*=\s*["\']|\s*>)\s*\d+', name + rb"\g<1>" + number, xmp)
    return re.sub(rb"<xmp:Thumbnails\b.*?</xmp:Thumbnails>", b"", xmp, flags=re.DOTALL)


def _resolution_only(resolution: tuple[float, float] | None) -> bytes | None:
    if resolution is None:
        return None
    entries = tags.resolution_entries(resolution, "<")
    return b"II*\0" + struct.pack("<I", 8) + tags.directory_bytes(entries, 8, "<")


def _set_whole(data: bytearray, entry: Entry | None, value: int, order: str) -> None:
    """Writes a number into a SHORT or LONG entry; a SHORT too small for it becomes a LONG."""
    if entry is None or entry.count != 1 or entry.kind not in (tags.SHORT, tags.LONG):
        return
    short = entry.kind == tags.SHORT and value < 2**16
    struct.pack_into(order + "H", data, entry.head + 2, tags.SHORT if short else tags.LONG)
    packed = struct.pack(order + ("H" if short else "I"), value)
    data[entry.head + 8 : entry.head + 12] = packed.ljust(4, b"\0")


def _set_resolution(
    data: bytearray, entries: dict[int, Entry], resolution: tuple[float, float], order: str
) -> bool:
    """Whether there were entries to set."""
    pair = [entries.get(tag) for tag in (tags.X_RESOLUTION, tags.Y_RESOLUTION)]
    found = [e for e in pair if e is not None and e.kind == tags.RATIONAL and e.count == 1]
    if len(found) < 2:
        return False
    _set_whole(data, entries.get(tags.RESOLUTION_UNIT), 2, order)  # inches; also meant without it
    for entry, per_mm in zip(found, resolution, strict=True):
        data[entry.at : entry.at + 8] = tags.ratio_bytes(per_mm * 25.4, order)
    return True


def _drop_thumbnail(
    data: bytearray, reader: TagReader, next_at: int, used: Sequence[Entry]
) -> None:
    """Unlinks the second directory, and wipes the picture it holds."""
    at = reader.next_directory(next_at)
    if at == 0:
        return
    data[next_at : next_at + 4] = bytes(4)
    try:
        thumbnail, _ = reader.directory(at)
        start = reader.whole(thumbnail[_THUMBNAIL_AT])
        stop = start + reader.whole(thumbnail[_THUMBNAIL_SIZE])
    except (KeyError, TagError):
        return
    # An entry that lies must not have anything else wiped out.
    overlaps = any(e.at < stop and e.at + len(e.value) > start for e in used)
    if overlaps or not next_at + 4 <= start < stop <= len(data):
        return
    if stop == len(data) and all(max(e.at, e.head + 12) <= start for e in used):
        del data[start:]
    else:
        data[start:stop] = bytes(stop - start)


def _add_entries(data: bytearray, reader: TagReader, more: Sequence[Entry]) -> None:
    """Appends a new first directory, with more entries, and points the header at it.

    The values of the old entries stay where they are, so nothing that refers to them breaks.
    """
    data += b"\0" * (len(data) % 2)
    at = len(data)
    data += tags.directory_bytes(more, at, reader.order, old=reader.raw_entries(reader.first))
    struct.pack_into(reader.order + "I", data, 4, at)

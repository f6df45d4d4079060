"""What is read from the beginning of a file by hand, because libvips does not tell it exactly.

libvips reports 72 dpi or 1 pixel per mm where a file names no resolution at all, does not see that
a PNG or AVIF is animated, and does not read EXIF from TIFF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pcsr_lightning.pictures import tiff_tags
from pcsr_lightning.pictures.formats import AVIF, JPEG, PNG, TIFF, Format
from pcsr_lightning.pictures.tags import TagReader

_MOST_CHUNKS = 10_000


@dataclass(frozen=True)
class Header:
    """Facts about a file.

    Attributes:
        resolution: pixels per mm, across and down, as stored (before any turning); None if not
            named (outside EXIF).
        animated: the file holds more than one frame.
        exif: of a TIFF file, an EXIF block with what its tags say.
        problem: why the picture must be refused, or None.
    """

    resolution: tuple[float, float] | None = None
    animated: bool = False
    exif: bytes | None = None
    problem: str | None = None


def read_header(file: BinaryIO, format_: Format) -> Header:
    """Reads what there is to know at a file's beginning.

    Raises:
        ValueError: a damaged TIFF structure.
    """
    if format_ is PNG:
        chunks = dict(png_chunks(file))
        return Header(_png_resolution(chunks.get(b"pHYs")), b"acTL" in chunks)
    if format_ is JPEG:
        return Header(_jfif_resolution(file))
    if format_ is AVIF:
        file.seek(8)
        return Header(animated=file.read(4) == b"avis")
    if format_ is TIFF:
        reader = TagReader(file)
        resolution = reader.resolution(reader.directory(reader.first)[0])
        exif = tiff_tags.take_exif(reader)
        return Header(resolution, exif=exif, problem=tiff_tags.problem(reader))
    return Header()


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of the small chunks before the pixels; of long ones the name only."""
    at = 8
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        size, name = struct.unpack(">I4s", head)
        if name in (b"IDAT", b"IEND"):
            return
        yield name, file.read(size) if size <= 1024 else b""
        at += 12 + size


def _png_resolution(chunk: bytes | None) -> tuple[float, float] | None:
    if chunk is None or len(chunk) != 9:
        return None
    x, y, unit = struct.unpack(">IIB", chunk)
    return (x / 1000, y / 1000) if unit == 1 and min(x, y) > 0 else None


def _jfif_resolution(file: BinaryIO) -> tuple[float, float] | None:
    file.seek(0)
    head = file.read(18)
    if len(head) < 18 or head[2:4] != b"\xff\xe0" or head[6:11] != b"JFIF\0":
        return None
    unit, x, y = struct.unpack(">BHH", head[13:18])
    per_unit = {1: 25.4, 2: 10.0}.get(unit)
    return (x / per_unit, y / per_unit) if per_unit is not None and min(x, y) > 0 else None

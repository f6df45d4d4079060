"""What is read from a file by hand, because libvips does not tell it, or not exactly.

libvips reports 72 dpi or 1 pixel per mm where a file names no resolution at all, does not see that
a PNG or AVIF is animated, does not read EXIF from TIFF, and keeps few captions and no colour codes.
Of sizes beyond its own bounds it complains on stderr, so those are known here before it sees them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from pcsr_lightning.images import exif as exif_blocks
from pcsr_lightning.images import exif_types, tiff_tags
from pcsr_lightning.images.formats import AVIF, JPEG, PNG, TIFF, Format
from pcsr_lightning.images.heif import read_heif
from pcsr_lightning.images.jpeg_notes import read_jpeg
from pcsr_lightning.images.notes import Notes
from pcsr_lightning.images.png_notes import read_png
from pcsr_lightning.images.tags import TagReader

_MOST_SIDE = 10_000_000


@dataclass(frozen=True)
class Header:
    """Facts about a file.

    Attributes:
        resolution: pixels per mm, across and down, as stored (before any turning); None if not
            named (outside EXIF).
        animated: the file holds more than one frame.
        exif: of a TIFF file, an EXIF block with what its tags say; of a PNG, one from a text chunk.
        xmp: of a PNG, a packet from a text chunk.
        orientation: what `exif` says, where libvips does not see it.
        size: (h, w) that the header claims, as stored; None where libvips tells it in time.
        profile: a PNG file has a colour profile; libpng drops one that does not fit unsaid.
        notes: captions and colour codes.
        left_out: what of the file cannot be kept, a phrase each.
        problem: why the picture must be refused, or None.
    """

    resolution: tuple[float, float] | None = None
    animated: bool = False
    exif: bytes | None = None
    xmp: bytes | None = None
    orientation: int = 1
    size: tuple[int, int] | None = None
    profile: bool = False
    notes: Notes = field(default_factory=Notes)
    left_out: tuple[str, ...] = ()
    problem: str | None = None


def read_header(file: BinaryIO, format_: Format) -> Header:
    """Reads what there is to know beside the pixels.

    Raises:
        ValueError: a damaged TIFF structure, or a size beyond all bounds.
    """
    readers = {PNG: _png, JPEG: _jpeg, TIFF: _tiff, AVIF: _avif}
    header = readers[format_](file) if format_ in readers else Header()
    if header.size is not None and not 0 < min(header.size) <= max(header.size) <= _MOST_SIDE:
        raise ValueError("its header claims {1:,} x {0:,} pixels".format(*header.size))
    return header


def _png(file: BinaryIO) -> Header:
    facts = read_png(file)
    head = facts.chunks.get(b"IHDR", b"")
    exif = None if b"eXIf" in facts.chunks else facts.exif
    return Header(
        _png_resolution(facts.chunks.get(b"pHYs")),
        b"acTL" in facts.chunks,
        exif,
        facts.xmp,
        exif_blocks.orientation_of(exif),
        struct.unpack(">II", head[:8])[::-1] if len(head) >= 8 else None,
        b"iCCP" in facts.chunks,
        facts.notes,
        tuple(facts.problems),
    )


def _jpeg(file: BinaryIO) -> Header:
    notes, problems = read_jpeg(file)
    return Header(_jfif_resolution(file), notes=notes, left_out=tuple(problems))


def _tiff(file: BinaryIO) -> Header:
    reader = TagReader(file)
    resolution = reader.resolution(reader.directory(reader.first)[0])
    wrong: list[int] = []
    exif = tiff_tags.take_exif(reader, wrong)
    left_out = [f"its values of another type than their tags' ({exif_types.names(wrong)})"]
    left_out = left_out if wrong else []
    notes = Notes()
    try:
        notes = Notes(iptc=tiff_tags.take_iptc(reader))
    except ValueError:
        left_out.append("its damaged IPTC")
    return Header(
        resolution,
        exif=exif,
        size=tiff_tags.size_of(reader),
        notes=notes,
        left_out=tuple(left_out),
        problem=tiff_tags.problem(reader),
    )


def _avif(file: BinaryIO) -> Header:
    file.seek(8)
    animated = file.read(4) == b"avis"
    facts = read_heif(file)
    return Header(animated=animated, size=facts.size, notes=Notes(cicp=facts.cicp))


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

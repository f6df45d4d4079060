"""Text and colour chunks of PNG files, copied from one file to another.

libvips drops gAMA, cHRM and cICP, which turns linear and HDR images into ones of wrong colours,
writes texts as UTF-8 where PNG wants Latin-1, and looks for EXIF and XMP before the pixels only.
The checksum of a chunk is all that is verified.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

Chunk = tuple[bytes, bytes]
"""Name and content of a PNG chunk."""

SRGB_CODES = (1, 13)
"""ITU-T H.273's codes of sRGB: primaries and transfer function."""
_COLOUR = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4, b"mDCV": 24, b"cLLI": 8}
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# libvips reads XMP, and `metadata_reader` the EXIF that ImageMagick hides in a text.
_XMP = b"XML:com.adobe.xmp\0"
_HIDDEN_EXIF = (b"Raw profile type exif\0", b"Raw profile type APP1\0")
_SAYS_SRGB = {
    (b"gAMA", struct.pack(">I", 45455)),
    (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    (b"cICP", bytes([*SRGB_CODES, 0, 1])),
}
_MOST_CHUNKS, _MOST_PIXEL_CHUNKS, _MOST_BYTES = 10_000, 2**20, 2**22
_MOST_NAMES = 4
_BEHIND_IHDR = 33
_PIECE = 2**20
_MOST_ASPECT = 10_000


@dataclass
class PngChunks:
    """What the chunks of a PNG file hold.

    Attributes:
        kept: colour chunks and texts, in the order of the file.
        resolution: pixels per mm, across and down; None if not named.
        density: the same per unit that is not named, where it differs.
        exif: that which is behind the pixels; `xmp` likewise.
        animated: the file holds more than one frame.
        has_profile: there is an ICC profile; libpng silently drops one that does not fit.
        damaged: names of chunks that are left out.
    """

    kept: list[Chunk] = field(default_factory=list)
    resolution: tuple[float, float] | None = None
    density: tuple[float, float] | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    animated: bool = False
    has_profile: bool = False
    damaged: list[str] = field(default_factory=list)


def read_chunks(file: BinaryIO) -> PngChunks:
    """Reads the chunks beside the pixels; damaged ones, and texts beyond 4 MiB, are left out."""
    found, room = PngChunks(), _MOST_BYTES
    for name, size, at, before_pixels in _chunks(file):
        found.animated |= name == b"acTL"
        found.has_profile |= name == b"iCCP"
        if name == b"pHYs" and size == 9:
            x, y, unit = struct.unpack(">IIB", _content(file, at, size).ljust(size, b"\0"))
            found.resolution = (x / 1000, y / 1000) if unit == 1 and min(x, y) > 0 else None
            found.density = (x, y) if unit == 0 and 0 < min(x, y) < max(x, y) else None
        if name == b"eXIf" and not before_pixels and size <= room:
            found.exif = _intact(file, name, size, at)
        colour = name in _COLOUR and before_pixels and name not in dict(found.kept)
        if not colour and name not in _TEXTS:
            continue
        wanted = size == _COLOUR[name] if colour else size <= room
        data = _intact(file, name, size, at) if wanted else None
        if data is None or (not colour and not _keyword(data)):
            found.damaged.append(f"a damaged or too large {name.decode()} chunk")
        elif data.startswith(_XMP) and not before_pixels:
            found.xmp = _unpacked(data)
            found.damaged += [] if found.xmp else ["XMP (damaged)"]
        elif data.startswith(_HIDDEN_EXIF) and not before_pixels:
            found.damaged.append("EXIF in a text behind the pixels")
        elif not data.startswith((_XMP, *_HIDDEN_EXIF)):
            room -= size
            found.kept.append((name, data))
    return found


def describe_chunks(chunks: tuple[Chunk, ...], has_profile: bool) -> list[str]:
    """Names of what is lost without these chunks; what only says sRGB is no loss.

    Args:
        chunks: as in `PngChunks`.
        has_profile: an ICC profile is kept, which goes before gamma and primaries.
    """
    keywords = list(dict.fromkeys(_keyword(data) for name, data in chunks if name in _TEXTS))
    more = len(keywords) - _MOST_NAMES
    texts = ", ".join(keywords[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    colour = [
        name.decode()
        for name, data in chunks
        if name in _COLOUR and name != b"sRGB" and (name, data) not in _SAYS_SRGB
    ]
    if has_profile or b"sRGB" in dict(chunks) or b"cICP" in dict(chunks):
        colour = [name for name in colour if name not in ("gAMA", "cHRM")]
    found = [f"PNG texts ({texts})"] if texts else []
    return found + ([f"colour chunks ({', '.join(colour)})"] if colour else [])


def insert_chunks(file: BinaryIO, chunks: tuple[Chunk, ...]) -> None:
    """Puts chunks into a finished PNG file, in front of all but the first one.

    Raises:
        OSError: the file cannot be written.
    """
    data = b"".join(_packed(name, content) for name, content in chunks)
    end = file.seek(0, 2)
    # What is behind moves, piece by piece from the end on, so that nothing large is in memory.
    while data and end > _BEHIND_IHDR:
        start = max(_BEHIND_IHDR, end - _PIECE)
        piece = _content(file, start, end - start)
        file.seek(start + len(data))
        file.write(piece)
        end = start
    file.seek(_BEHIND_IHDR)
    file.write(data)


def write_aspect(file: BinaryIO, density: tuple[float, float] | None) -> None:
    """Gives the resolution no unit, so that it says how wide pixels are: libvips writes one.

    Args:
        file: open for reading and writing.
        density: pixels across and down per any unit; None if that is as unknown.

    Raises:
        OSError: the file cannot be written.
    """
    across, down = density or (1.0, 1.0)
    aspect = across / down
    believable = 1 / _MOST_ASPECT <= aspect <= _MOST_ASPECT
    ratio = Fraction(aspect if believable else 1).limit_denominator(_MOST_ASPECT)
    for name, _, at, _ in _chunks(file):
        if name == b"pHYs":
            file.seek(at - 8)
            file.write(_packed(name, struct.pack(">IIB", *ratio.as_integer_ratio(), 0)))
            return


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int, bool]]:
    """Name, size and place of each chunk's content, and whether it is before the pixels."""
    at, others, pixels = 8, 0, 0
    while others < _MOST_CHUNKS and pixels < _MOST_PIXEL_CHUNKS:
        head = _content(file, at, 8)
        if len(head) < 8:
            return
        size, name = struct.unpack(">I4s", head)
        if name == b"IEND":
            return
        if name in (b"IDAT", b"fdAT"):
            pixels += 1
        else:
            others += 1
            yield name, size, at + 8, pixels == 0
        at += 12 + size


def _content(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def _packed(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _intact(file: BinaryIO, name: bytes, size: int, at: int) -> bytes | None:
    """A chunk's content if its checksum is right: a new one must not bless damage."""
    data = _content(file, at, size + 4)
    intact = len(data) == size + 4 and zlib.crc32(name + data[:size]) == int.from_bytes(data[size:])
    return data[:size] if intact else None


def _unpacked(text: bytes) -> bytes | None:
    """What an iTXt chunk of XMP says, `_MOST_BYTES` at most; None if it is damaged or longer."""
    packed, fields = text[len(_XMP) : len(_XMP) + 1], text[len(_XMP) + 2 :].split(b"\0", 2)
    if len(fields) < 3 or packed == b"\0":
        return fields[2] if len(fields) == 3 else None
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(fields[2], _MOST_BYTES)
    except zlib.error:
        return None
    return data if unpacking.eof else None


def _keyword(text: bytes) -> str:
    """The keyword of a text chunk; empty if it is not one that may be printed."""
    word, end, _ = text[:80].partition(b"\0")
    return word.decode("latin-1") if end and word.decode("latin-1").isprintable() else ""

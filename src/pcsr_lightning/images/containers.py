"""Finished files amended where libvips does not write what is wanted.

Captions and colour codes are put into the file; what lies behind them moves, piece by piece.

libvips rewrites EXIF on its own terms (private tags are lost, maker notes move) and writes a
resolution even where none is known. So it is given a block of the right length, which is then
overwritten byte for byte, and an unfounded resolution is marked as one without a unit.
"""

from __future__ import annotations

import secrets
import struct
import zlib
from functools import cache
from typing import BinaryIO

import pyvips

from pcsr_lightning.images import heif, jpeg_notes, png_notes, tags, tiff_tags
from pcsr_lightning.images.formats import AVIF, JPEG, PNG, TIFF, Format
from pcsr_lightning.images.notes import Notes

_MARK = b"Exif\0\0"
_MARK_BYTES = 16
_MAKER_NOTE = 0x927C
_PIECE = 2**20
_JFIF_BYTES = 18
_BEHIND_IHDR = 33
JPEG_MOST_XMP = 60_000  # libvips leaves more out without a word
MOST_EXIF = 65_500  # what a JPEG has room for; libvips passes on no more in any format


class ExifPlace:
    """A block that libvips writes in place of an EXIF block of the same length, found again later.

    The content of a maker note is what libvips leaves alone: its first bytes are a mark that cannot
    stand anywhere else, the rest makes up the length.

    In a JPEG there is room besides for a JFIF segment, which libvips leaves out.

    Args:
        exif: the block to make room for, from its TIFF header on.
        format_: of the file.
        resolution: pixels per mm, across and down.
    """

    def __init__(
        self, exif: bytes, format_: Format, resolution: tuple[float, float] | None
    ) -> None:
        self._exif, self._format, self._resolution = exif, format_, resolution
        self._mark = secrets.token_bytes(_MARK_BYTES)
        before, rest = _rewritten()
        wanted = len(exif) + (_JFIF_BYTES if format_ is JPEG else 0)
        room = max(0, wanted - before - _MARK_BYTES - rest)
        self._before, self._length = before, before + _MARK_BYTES + room + rest
        self.block = _block(self._mark + bytes(room))

    def fill(self, file: BinaryIO) -> None:
        """Overwrites the block in the file.

        Raises:
            ValueError: it is not there.
        """
        start = _found(file, self._mark) - self._before
        if self._format is JPEG:
            start -= len(_MARK) + 4
            content = self._exif.ljust(self._length - _JFIF_BYTES, b"\0")
            content = _MARK + content
            size = struct.pack(">H", len(content) + 2)
            content = _jfif(self._resolution) + b"\xff\xe1" + size + content
        else:
            content = self._exif.ljust(self._length, b"\0")
        if self._format is PNG:
            content += struct.pack(">I", zlib.crc32(b"eXIf" + content))
        file.seek(start)
        file.write(content)


def forget_resolution(file: BinaryIO, format_: Format) -> None:
    """Marks the resolution in a file as one that tells nothing."""
    if format_ is TIFF:
        tiff_tags.forget_resolution(file)
    elif format_ is PNG:
        at = _png_chunk(file, b"pHYs")
        if at is not None:
            content = struct.pack(">IIB", 1, 1, 0)
            file.seek(at + 8)
            file.write(content + struct.pack(">I", zlib.crc32(b"pHYs" + content)))


def put_notes(file: BinaryIO, format_: Format, notes: Notes) -> None:
    """Puts what the format holds of captions and colour codes into the file. TIFF has its own way.

    Raises:
        BoxError: an AVIF that is not built as expected; it is left as it was.
        OSError: the file cannot be written.
    """
    if format_ is PNG:
        _insert(file, _BEHIND_IHDR, png_notes.chunk_bytes(notes))
    elif format_ is JPEG:
        _insert(file, jpeg_notes.place(file), jpeg_notes.segment_bytes(notes))
    elif format_ is AVIF and notes.cicp is not None and notes.cicp[2]:
        at, old, new = heif.with_cicp(file, notes.cicp)
        _insert(file, at, bytes(len(new) - len(old)))
        file.seek(at)
        file.write(new)


def _insert(file: BinaryIO, at: int, data: bytes) -> None:
    """Moves what is behind a place from its end on, so that nothing is held or doubled."""
    if not data:
        return
    end = file.seek(0, 2)
    while end > at:
        start = max(at, end - _PIECE)
        file.seek(start)
        piece = file.read(end - start)
        file.seek(start + len(data))
        file.write(piece)
        end = start
    file.seek(at)
    file.write(data)


def _jfif(resolution: tuple[float, float] | None) -> bytes:
    unit, dots = 0, (1, 1)
    if resolution is not None:
        x, y = (round(per_mm * 25.4) for per_mm in resolution)
        if min(x, y) >= 1 and max(x, y) < 2**16:
            unit, dots = 1, (x, y)
    return struct.pack(">2sH5s3B2H2B", b"\xff\xe0", 16, b"JFIF\0", 1, 2, unit, *dots, 0, 0)


def _found(file: BinaryIO, mark: bytes) -> int:
    """Where a mark lies; files of gigabytes are looked through piece by piece.

    Raises:
        ValueError: it is nowhere.
    """
    file.seek(0)
    at, window = 0, b""
    while piece := file.read(_PIECE):
        kept = window[-len(mark) + 1 :]
        window = kept + piece
        if (found := window.find(mark)) >= 0:
            return at - len(kept) + found
        at += len(piece)
    raise ValueError("EXIF could not be put into the file")


def _png_chunk(file: BinaryIO, wanted: bytes) -> int | None:
    """Where a chunk before the pixels lies."""
    at = 8
    while True:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IDAT":
            return None
        if head[4:] == wanted:
            return at
        at += 12 + int.from_bytes(head[:4], "big")


def _block(note: bytes) -> bytes:
    pointer = tags.number_entry(tags.EXIF, tags.LONG, 26, "<")
    maker_note = tags.Entry(_MAKER_NOTE, 7, len(note), note)
    first = struct.pack("<4sI", b"II*\0", 8) + tags.directory_bytes([pointer], 8, "<")
    return _MARK + first + tags.directory_bytes([maker_note], 26, "<")


@cache
def _rewritten() -> tuple[int, int]:
    """How many bytes libvips puts before and behind the maker note's content."""
    mark = secrets.token_bytes(_MARK_BYTES)
    image = pyvips.Image.black(1, 1).copy()
    image.set_type(pyvips.GValue.blob_type, "exif-data", _block(mark))
    data = image.pngsave_buffer(keep=1)
    at = data.index(b"eXIf")
    size = int.from_bytes(data[at - 4 : at], "big")
    before = data.index(mark) - (at + 4)
    return before, size - before - _MARK_BYTES

"""The captions and colour numbers of PNG files: chunks read, checked, and made.

Texts are carried in the chunks that they came in. Compressed ones are unpacked only to see whether
they are whole, and no further than a limit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from pcsr_lightning.images import iptc
from pcsr_lightning.images.notes import Chunk, Notes

_SIZES = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4, b"mDCV": 24, b"cLLI": 8}
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp"  # libvips reads and writes it
_RAW = b"Raw profile type "
_MARK, _XMP_MARK = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_MOST_CHUNKS, _MOST_PIXEL_CHUNKS, _MOST_TEXTS = 10_000, 2**20, 1000
_MOST_TEXT, _MOST_WORK = 2**22, 2**24
_SMALL = 1024


@dataclass
class PngFacts:
    """What a PNG file's chunks tell.

    Attributes:
        chunks: the small ones before the pixels; of long ones only the names.
        notes: captions and colour numbers.
        exif: from a text chunk, where older programs keep it.
        xmp: likewise.
        problems: what is left out, a phrase each.
    """

    chunks: dict[bytes, bytes] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    exif: bytes | None = None
    xmp: bytes | None = None
    problems: list[str] = field(default_factory=list)


def read_png(file: BinaryIO) -> PngFacts:
    """What the chunks tell; damaged ones are named, and left out."""
    facts, reader = PngFacts(), _Texts()
    colour: dict[bytes, bytes] = {}
    for name, size, at, before in _chunks(file):
        if before:
            facts.chunks[name] = _content(file, at, size) if size <= _SMALL else b""
        if name in _TEXTS:
            reader.take(file, name, size, at)
        elif name in _SIZES and before and name not in colour:
            data = _intact(file, name, size, at) if size == _SIZES[name] else None
            if data is None or not _sensible(name, data):
                facts.problems.append(f"its damaged {name.decode()} chunk")
            else:
                colour[name] = data
    code = colour.pop(b"cICP", None)
    cicp = None if code is None else (code[0], code[1], code[3] == 1)
    facts.notes = Notes(reader.iptc, (), tuple(reader.kept), tuple(colour.items()), cicp)
    facts.exif, facts.xmp = reader.exif, reader.xmp
    facts.problems += reader.problems
    return facts


def chunk_bytes(notes: Notes) -> bytes:
    """The chunks that hold the notes, to stand before all chunks but the first."""
    chunks = []
    if notes.cicp is not None:
        primaries, transfer, full = notes.cicp
        chunks.append((b"cICP", bytes([primaries, transfer, 0, int(full)])))
    chunks += [*notes.colour, *notes.texts, *map(_comment, notes.comments)]
    if notes.iptc is not None:
        text = iptc.to_hex(b"iptc", iptc.to_resources(notes.iptc))
        chunks.append((b"zTXt", _RAW + b"iptc\0\0" + zlib.compress(text)))
    return b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


class _Texts:
    """Text chunks, sorted into those to carry and those that hold something else.

    Attributes:
        kept: the chunks to carry.
    """

    def __init__(self) -> None:
        self.kept: list[Chunk] = []
        self.iptc: bytes | None = None
        self.exif: bytes | None = None
        self.xmp: bytes | None = None
        self.problems: list[str] = []
        self._room, self._work, self._count = _MOST_TEXT, _MOST_WORK, 0

    def take(self, file: BinaryIO, name: bytes, size: int, at: int) -> None:
        """Reads one."""
        self._count += 1
        if size > self._room or self._count > _MOST_TEXTS:
            self._leave_out("a text chunk too large, or one too many")
            return
        self._room -= size
        data = _intact(file, name, size, at)
        word = None if data is None else _keyword(data)
        if data is None or word is None:
            self._leave_out("a damaged text chunk")
            return
        if word == _XMP:
            return
        most = max(0, min(self._room, self._work))
        try:
            text = _unpacked(name, data[len(word) + 1 :], most)
            self._room -= len(text)
            self._work -= len(text)
            if not self._is_profile(word, text):
                self.kept.append((name, data))
        except ValueError as error:
            self._work -= most  # what it took to find out
            self._leave_out(f"its {error} text '{word.decode('latin-1')}'")

    def _is_profile(self, word: bytes, text: bytes) -> bool:
        """Whether the text stands for something that has a place of its own, now taken there."""
        kind = word.removeprefix(_RAW).lower()
        if not word.startswith(_RAW) or kind not in (b"exif", b"app1", b"xmp", b"iptc", b"8bim"):
            return False
        try:
            content = iptc.from_hex(text)
            if kind in (b"iptc", b"8bim"):
                bare = content.removeprefix(iptc.PREFIX)
                wrapped = bare.startswith(b"8BIM")
                self.iptc = iptc.from_resources(bare) if wrapped else iptc.checked(bare)
            elif kind == b"xmp" or content.startswith(_XMP_MARK):
                self.xmp = content.removeprefix(_XMP_MARK)
            else:
                self.exif = content.removeprefix(_MARK)
        except ValueError:
            raise ValueError("damaged") from None
        return True

    def _leave_out(self, words: str) -> None:
        if words not in self.problems:
            self.problems.append(words)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int, bool]]:
    """Name, size and place of each chunk's content, and whether it is before the pixels."""
    at, others, pixels = 8, 0, 0
    while others < _MOST_CHUNKS and pixels < _MOST_PIXEL_CHUNKS:
        file.seek(at)
        head = file.read(8)
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


def _intact(file: BinaryIO, name: bytes, size: int, at: int) -> bytes | None:
    """A chunk's content if its checksum is right: a new one must not bless damage."""
    data = _content(file, at, size + 4)
    if len(data) != size + 4 or zlib.crc32(name + data[:size]) != int.from_bytes(data[size:]):
        return None
    return data[:size]


def _sensible(name: bytes, data: bytes) -> bool:
    if name == b"cICP":
        return data[2] == 0 and data[3] <= 1  # RGB; a flag
    if name == b"sRGB":
        return data[0] <= 3
    return name != b"gAMA" or any(data)


def _keyword(data: bytes) -> bytes | None:
    word, end, _ = data.partition(b"\0")
    printable = all(32 <= c <= 126 or c >= 161 for c in word)
    return word if end and 1 <= len(word) <= 79 and printable else None


def _unpacked(name: bytes, rest: bytes, most: int) -> bytes:
    """The text of a chunk, from what follows its keyword and the 0 behind that.

    Raises:
        ValueError: says in a word what it is.
    """
    if name == b"tEXt":
        return rest
    if name == b"zTXt":
        if rest[:1] != b"\0":
            raise ValueError("damaged")
        return _inflated(rest[1:], most)
    parts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
    if len(parts) != 3 or rest[:2] not in (b"\0\0", b"\1\0"):
        raise ValueError("damaged")
    text = _inflated(parts[2], most) if rest[0] else parts[2]
    try:
        text.decode()
    except UnicodeDecodeError:
        raise ValueError("damaged") from None
    return text


def _inflated(data: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, most + 1)
    except zlib.error:
        raise ValueError("damaged") from None
    if len(text) > most:
        raise ValueError("too large")
    if not unpacker.eof:
        raise ValueError("damaged")
    return text


def _comment(comment: bytes) -> Chunk:
    """A JPEG's comment, which tells no encoding: as plain text where it is, else as UTF-8."""
    comment = comment.rstrip(b"\0").replace(b"\0", b" ")
    try:
        if not comment.isascii() and comment.decode():
            return b"iTXt", b"Comment\0\0\0\0\0" + comment
    except UnicodeDecodeError:
        pass
    return b"tEXt", b"Comment\0" + comment

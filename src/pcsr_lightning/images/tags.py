"""The structure that TIFF files and EXIF blocks share: directories of tagged values.

EXIF is edited in place here, because maker notes hold offsets into the block they came in:
libexif (behind libvips) drops private tags and moves them, Pillow moves them too.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

ORIENTATION, WIDTH, HEIGHT = 0x112, 0x100, 0x101
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x11A, 0x11B, 0x128
PIXELS_ACROSS, PIXELS_DOWN = 0xA002, 0xA003
EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005
SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8, 129: 1}  # BigTIFF; UTF-8 of EXIF 3
_WORDS = {5: 4, 10: 4}  # what a rational is made of
_MOST_ENTRIES = 4096
_MM_PER_UNIT = {2: 25.4, 3: 10.0}


class TagError(ValueError):
    """Not such a structure, or a damaged one."""


@dataclass(frozen=True)
class Entry:
    """One tagged value.

    Attributes:
        tag: what it is.
        kind: the type of its values.
        count: how many there are.
        value: their bytes, in the file's byte order.
        head: where its directory entry lies.
        at: where the bytes of its value lie.
    """

    tag: int
    kind: int
    count: int
    value: bytes
    head: int = 0
    at: int = 0


class TagReader:
    """Reads directories from a seekable file.

    Attributes:
        order: "<" or ">", for `struct`.
        big: BigTIFF, with 64-bit offsets.
        first: where the first directory lies.

    Raises:
        TagError: not a TIFF structure.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        head = self._read(0, min(16, self.size))
        orders = {b"II": "<", b"MM": ">"}
        if len(head) < 8 or head[:2] not in orders:
            raise TagError("no TIFF header")
        self.order = orders[head[:2]]
        version = self._number("H", head[2:4])
        if version not in (42, 43) or (version == 43 and len(head) < 16):
            raise TagError("no TIFF header")
        self.big = version == 43
        self.first = self._number("Q", head[8:16]) if self.big else self._number("I", head[4:8])

    def directory(self, at: int) -> tuple[dict[int, Entry], int]:
        """The entries by tag, and where the offset of the next directory lies.

        Entries of unknown types or with values beyond the file's end are left out.

        Raises:
            TagError: the directory lies beyond the file's end or has thousands of entries.
        """
        count_size, entry_size = (8, 20) if self.big else (2, 12)
        count = self._number("Q" if self.big else "H", self._read(at, count_size))
        if not 0 < count <= _MOST_ENTRIES:
            raise TagError("a directory without entries, or with thousands")
        block = self._read(at + count_size, count * entry_size)
        heads = (at + count_size + number * entry_size for number in range(count))
        entries = [
            self._entry(block[head - at - count_size :][:entry_size], head) for head in heads
        ]
        return {e.tag: e for e in entries if e is not None}, at + count_size + count * entry_size

    def raw_entries(self, at: int) -> list[bytes]:
        """A directory's entries as they stand in the file, those of unknown types too."""
        count_size, entry_size = (8, 20) if self.big else (2, 12)
        count = self._number("Q" if self.big else "H", self._read(at, count_size))
        block = self._read(at + count_size, count * entry_size)
        return [block[start : start + entry_size] for start in range(0, len(block), entry_size)]

    def next_directory(self, next_at: int) -> int:
        """Where the directory after the one ending there lies; 0 if there is none."""
        try:
            return self._number("Q" if self.big else "I", self._read(next_at, 8 if self.big else 4))
        except TagError:
            return 0

    def below(self, entries: dict[int, Entry], tag: int) -> dict[int, Entry]:
        """The directory that an entry points to; empty if there is none or it is damaged."""
        try:
            return self.directory(self.whole(entries[tag]))[0]
        except (KeyError, TagError):
            return {}

    def whole(self, entry: Entry) -> int:
        """An entry's first value.

        Raises:
            TagError: it is not a whole number.
        """
        codes = {1: "B", SHORT: "H", LONG: "I", 13: "I", LONG8: "Q", 18: "Q"}
        if entry.kind not in codes or entry.count < 1:
            raise TagError("not a whole number")
        return self._number(codes[entry.kind], entry.value[: _SIZES[entry.kind]])

    def resolution(self, entries: dict[int, Entry]) -> tuple[float, float] | None:
        """Pixels per mm, across and down, or None if the directory names none."""
        try:
            unit = self.whole(entries[RESOLUTION_UNIT]) if RESOLUTION_UNIT in entries else 2
            x, y = (self._ratio(entries[tag]) for tag in (X_RESOLUTION, Y_RESOLUTION))
        except (KeyError, TagError):
            return None
        per_unit = _MM_PER_UNIT.get(unit)
        return None if per_unit is None or min(x, y) <= 0 else (x / per_unit, y / per_unit)

    def _ratio(self, entry: Entry) -> float:
        if entry.kind != RATIONAL or entry.count != 1:
            raise TagError("not a fraction")
        above, below = struct.unpack(f"{self.order}2I", entry.value)
        if below == 0:
            raise TagError("divided by zero")
        return float(above) / float(below)

    def _entry(self, raw: bytes, head: int) -> Entry | None:
        inline = 8 if self.big else 4
        code = "Q" if self.big else "I"
        tag, kind = struct.unpack(f"{self.order}2H", raw[:4])
        count = self._number(code, raw[4 : 4 + inline])
        if kind not in _SIZES:
            return None
        size = count * _SIZES[kind]
        at = head + 4 + inline if size <= inline else self._number(code, raw[-inline:])
        if size > self.size or at + size > self.size:
            return None
        return Entry(tag, kind, count, self._read(at, size), head, at)

    def _number(self, code: str, raw: bytes) -> int:
        return int(struct.unpack(self.order + code, raw)[0])

    def _read(self, at: int, size: int) -> bytes:
        if at + size > self.size:
            raise TagError("cut off")
        self._file.seek(at)
        found = self._file.read(size)
        if len(found) != size:
            raise TagError("cut off")
        return found


def number_entry(tag: int, kind: int, value: int, order: str) -> Entry:
    """A SHORT, LONG or LONG8."""
    code = {SHORT: "H", LONG: "I", LONG8: "Q"}[kind]
    return Entry(tag, kind, 1, struct.pack(order + code, value))


def ratio_bytes(value: float, order: str) -> bytes:
    """A positive fraction, to one part in 10,000 or better."""
    most = 2**32 - 1
    value = min(max(value, 1 / most), most)
    ratio = Fraction(value).limit_denominator(max(1, min(1000, int(most / value))))
    if ratio.numerator == 0:
        ratio = Fraction(1, min(most, round(1 / value)))
    return struct.pack(f"{order}2I", ratio.numerator, ratio.denominator)


def resolution_entries(resolution: tuple[float, float], order: str) -> list[Entry]:
    """Pixels per mm as the three entries that say so, per inch."""
    tags = zip((X_RESOLUTION, Y_RESOLUTION), resolution, strict=True)
    found = [Entry(tag, RATIONAL, 1, ratio_bytes(per_mm * 25.4, order)) for tag, per_mm in tags]
    return [*found, number_entry(RESOLUTION_UNIT, SHORT, 2, order)]


def swapped(entry: Entry, order: str, wanted: str) -> Entry:
    """The entry with its value in another byte order."""
    if order == wanted:
        return entry
    word = _WORDS.get(entry.kind, _SIZES[entry.kind])
    words = (entry.value[at : at + word][::-1] for at in range(0, len(entry.value), word))
    return Entry(entry.tag, entry.kind, entry.count, b"".join(words))


def directory_bytes(
    entries: Sequence[Entry],
    at: int,
    order: str,
    big: bool = False,
    *,
    old: Sequence[bytes] = (),
    following: int = 0,
) -> bytes:
    """A directory and the values that do not fit into it.

    Args:
        entries: its entries.
        at: the even offset where it is going to lie.
        order: "<" or ">".
        big: BigTIFF.
        old: raw entries to take over; their values stay where they are.
        following: where the next directory lies.
    """
    inline, code = (8, "Q") if big else (4, "I")
    new_tags = {entry.tag for entry in entries}
    table = {struct.unpack(order + "H", raw[:2])[0]: raw for raw in old}
    table = {tag: raw for tag, raw in table.items() if tag not in new_tags}
    count = len(table) + len(entries)
    values_at = at + (8 if big else 2) + count * (4 + 2 * inline) + inline
    values = b""
    for entry in entries:
        raw = struct.pack(f"{order}2H{code}", entry.tag, entry.kind, entry.count)
        if len(entry.value) <= inline:
            raw += entry.value.ljust(inline, b"\0")
        else:
            raw += struct.pack(order + code, values_at + len(values))
            values += entry.value + b"\0" * (len(entry.value) % 2)
        table[entry.tag] = raw
    head = struct.pack(order + ("Q" if big else "H"), count)
    rows = b"".join(table[tag] for tag in sorted(table))
    return head + rows + struct.pack(order + code, following) + values

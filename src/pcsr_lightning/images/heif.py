"""The boxes of AVIF files: sizes and colour codes read, and colour codes put in.

libvips tells no colour codes and writes none, so a picture for a brighter screen would come out as
an ordinary one. Boxes and their fields are those of ISO/IEC 14496-12 and 23008-12.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_MOST_META = 2**24
_MOST_BOXES = 10_000
_BT601, _UNSPECIFIED = 6, 2
_SRGB = (1, 13)


@dataclass(frozen=True)
class Box:
    """A box within its file.

    Attributes:
        name: four letters.
        at: where it begins, with its size.
        body: where its content begins.
        end: where it ends.
    """

    name: bytes
    at: int
    body: int
    end: int


@dataclass(frozen=True)
class HeifFacts:
    """What the boxes tell.

    Attributes:
        size: (h, w), the largest that any part of the file claims; None if none does.
        cicp: as in `Notes`; None for sRGB, or if not told.
    """

    size: tuple[int, int] | None = None
    cicp: tuple[int, int, bool] | None = None


def read_heif(file: BinaryIO) -> HeifFacts:
    """What the boxes tell; damaged ones tell nothing."""
    data = _meta(file)[1]
    sizes: list[tuple[int, int]] = []
    cicp = None
    for box in _properties(data):
        body = data[box.body : box.end]
        if box.name == b"ispe" and len(body) >= 12:
            w, h = struct.unpack_from(">II", body, 4)
            sizes.append((h, w))
        elif box.name == b"colr" and body[:4] == b"nclx" and len(body) >= 11 and cicp is None:
            cicp = struct.unpack_from(">HH", body, 4)
    size = None if not sizes else (max(h for h, _ in sizes), max(w for _, w in sizes))
    told = cicp is not None and _UNSPECIFIED not in cicp and cicp != _SRGB and max(cicp) < 256
    # Whatever range the file has, decoding brings values to the full one.
    return HeifFacts(size, (cicp[0], cicp[1], True) if told and cicp is not None else None)


class BoxError(ValueError):
    """A file that is built in another way than libvips builds them."""


def with_cicp(file: BinaryIO, cicp: tuple[int, int, bool]) -> tuple[int, bytes, bytes]:
    """The `meta` box that tells colour codes besides.

    The matrix and range that it tells are those that libvips encodes with.

    Args:
        file: as libvips writes it.
        cicp: as in `Notes`.

    Returns:
        Where the old box lies, the old box and the new one, which is as long or longer.

    Raises:
        BoxError: the file is built in another way.
    """
    at, meta = _meta(file)
    for box in _properties(meta):
        if box.name == b"colr" and meta[box.body : box.body + 4] == b"nclx":
            codes = struct.pack(">HH", *cicp[:2])
            return at, meta, meta[: box.body + 4] + codes + meta[box.body + 8 :]
    parts = {box.name: box for box in _boxes(meta, 12, len(meta))}
    if not {b"pitm", b"iprp", b"iloc"} <= parts.keys():
        raise BoxError("parts are missing")
    inner = {box.name: box for box in _boxes(meta, parts[b"iprp"].body, parts[b"iprp"].end)}
    if not {b"ipco", b"ipma"} <= inner.keys():
        raise BoxError("parts are missing")
    ipco, ipma = inner[b"ipco"], inner[b"ipma"]
    number = 1 + sum(1 for _ in _boxes(meta, ipco.body, ipco.end))
    primary = meta[parts[b"pitm"].body :][4:6]
    colour = struct.pack(">I4s4sHHHB", 19, b"colr", b"nclx", cicp[0], cicp[1], _BT601, 0x80)
    properties = _boxed(b"ipco", meta[ipco.body : ipco.end] + colour)
    uses = _boxed(b"ipma", _with_use(meta[ipma.body : ipma.end], primary, number))
    new = _boxed(b"iprp", properties + uses)
    old = parts[b"iprp"]
    longer = len(new) - (old.end - old.at)
    moved = _moved(meta[parts[b"iloc"].body : parts[b"iloc"].end], longer)
    pieces = {b"iprp": new, b"iloc": _boxed(b"iloc", moved)}
    kept = (pieces.get(name, meta[box.at : box.end]) for name, box in parts.items())
    return at, meta, _boxed(b"meta", meta[8:12] + b"".join(kept))


def _meta(file: BinaryIO) -> tuple[int, bytes]:
    """Where the `meta` box lies, and the whole of it; nothing if there is none."""
    at = 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            break
        size, name = struct.unpack(">I4s", head)
        if name == b"meta" and 12 <= size <= _MOST_META:
            file.seek(at)
            return at, file.read(size)
        if size < 8:  # up to the end of the file, or a size in 64 bits: both are of pixels
            break
        at += size
    return 0, b""


def _properties(meta: bytes) -> Iterator[Box]:
    for outer in _boxes(meta, 12, len(meta)):
        if outer.name == b"iprp":
            for inner in _boxes(meta, outer.body, outer.end):
                if inner.name == b"ipco":
                    yield from _boxes(meta, inner.body, inner.end)


def _boxes(data: bytes, at: int, end: int) -> Iterator[Box]:
    while at + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, at)
        if size < 8 or at + size > end:
            return
        yield Box(name, at, at + 8, at + size)
        at += size


def _boxed(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def _with_use(ipma: bytes, primary: bytes, number: int) -> bytes:
    """The associations, the primary picture's with one more property.

    Raises:
        BoxError: of another kind.
    """
    if ipma[0] != 0 or ipma[3] & 1 or number > 127:
        raise BoxError("of another version")
    out, at = ipma[:8], 8
    for _ in range(struct.unpack_from(">I", ipma, 4)[0]):
        item, count = ipma[at : at + 2], ipma[at + 2]
        uses = ipma[at + 3 : at + 3 + count]
        at += 3 + count
        if item == primary:
            uses += bytes([number])
        out += item + bytes([len(uses)]) + uses
    return out


def _moved(iloc: bytes, by: int) -> bytes:
    """The places of the parts, all of which lie behind the box that grew.

    Raises:
        BoxError: of another kind.
    """
    version, sizes, base = iloc[0], iloc[4], iloc[5] >> 4
    if version > 1 or sizes != 0x44 or base not in (0, 4) or iloc[5] & 15:
        raise BoxError("of another version")
    data, at = bytearray(iloc), 8
    for _ in range(struct.unpack_from(">H", iloc, 6)[0]):
        within = version == 1 and struct.unpack_from(">H", iloc, at + 2)[0] & 15 != 0
        at += 4 + 2 * version
        start = struct.unpack_from(">I", data, at)[0] if base else 0
        if start and not within:
            struct.pack_into(">I", data, at, start + by)
        at += base
        extents = struct.unpack_from(">H", data, at)[0]
        at += 2
        for _ in range(extents):
            if not start and not within:
                struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + by)
            at += 8
    return bytes(data)

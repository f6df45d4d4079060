"""Photoshop's image resources, among which IPTC records are.

libvips carries them as a block. Without this their thumbnail, resolution, guides and slices of the
old pixels would go along, and TIFF files would lack IPTC where others look for it.
"""

from __future__ import annotations

import re
import struct

MARK = b"Photoshop 3.0\0"
"""Begins a JPEG segment of image resources."""
_IPTC, _RESOLUTION, _THUMBNAILS = 0x0404, 0x03ED, (0x0409, 0x040C)
_PLACES = {0x0408: "guides", 0x041A: "slices"}
_HEAD = re.compile(rb"(?s)8BIM(..)(.)")
_INCH, _FIXED = 25.4, 2**16
_Resource = tuple[int, bytes, bytes]
"""Number, name as it is written, content."""


def brought_up_to_date(
    resources: bytes, resolution: tuple[float, float] | None
) -> tuple[bytes, list[str]]:
    """The resources without thumbnail and places in the old picture, and names of these.

    Args:
        resources: of the old picture.
        resolution: of the new one in pixels per mm; that of the old one goes where it is not known.
    """
    parts, rest = _split(resources)
    kept, lost = [], []
    for number, name, data in parts:
        if number in _PLACES:
            lost.append(f"Photoshop's {_PLACES[number]}")
        elif number == _RESOLUTION and resolution is not None and len(data) == 16:
            across, down = (round(r * _INCH * _FIXED) for r in resolution)
            if max(across, down) < 2**31:
                data = struct.pack(">i4si4s", across, data[4:8], down, data[12:])
                kept.append((number, name, data))
        elif number not in (*_THUMBNAILS, _RESOLUTION):
            kept.append((number, name, data))
    if len(kept) == len(parts) and kept == parts:
        return resources, []
    return b"".join(_packed(*part) for part in kept) + rest, lost


def iptc_records(resources: bytes) -> bytes | None:
    """The IPTC records among image resources."""
    return next((data for number, _, data in _split(resources)[0] if number == _IPTC), None) or None


def as_resource(records: bytes) -> bytes:
    """IPTC records as an image resource."""
    return _packed(_IPTC, b"\0\0", records)


def _split(resources: bytes) -> tuple[list[_Resource], bytes]:
    """The resources, and what follows the last one that is whole."""
    found: list[_Resource] = []
    at = 0
    while head := _HEAD.match(resources, at):
        start = at + 6 + (head[2][0] + 2) // 2 * 2  # the name and its length fill it up
        size = int.from_bytes(resources[start : start + 4], "big")
        data = resources[start + 4 : start + 4 + size]
        if len(data) < size:
            break
        found.append((int.from_bytes(head[1], "big"), resources[at + 6 : start], data))
        at = start + 4 + size + size % 2
    return found, resources[at:]


def _packed(number: int, name: bytes, data: bytes) -> bytes:
    head = b"8BIM" + struct.pack(">H", number) + name + struct.pack(">I", len(data))
    return head + data + b"\0" * (len(data) % 2)

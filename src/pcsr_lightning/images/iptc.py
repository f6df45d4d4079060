"""IPTC-IIM records, and what files wrap them in: Photoshop's resources, and those in hexadecimals.

JPEG holds them as a resource in APP13 segments, TIFF as they are in tag 33723, PNG as a text chunk
that ImageMagick began and exiftool and exiv2 share.
"""

from __future__ import annotations

import struct

PREFIX = b"Photoshop 3.0\0"
_RESOURCE, _IPTC, _RECORD = b"8BIM", 0x0404, 0x1C
_MOST = 2**20
_LINE = 72


def checked(data: bytes) -> bytes:
    """The records without what only fills up behind them.

    Raises:
        ValueError: they are damaged or out of all proportion.
    """
    at = 0
    while at < len(data) and data[at] == _RECORD:
        if at + 5 > len(data):
            raise ValueError("cut off")
        size = struct.unpack_from(">H", data, at + 3)[0]
        at += 5
        if size & 0x8000:  # its lower bits tell how many bytes tell the size
            width = size & 0x7FFF
            size = int.from_bytes(data[at : at + min(width, 8)], "big")
            at += width
        at += size
    if not 0 < at <= len(data):
        raise ValueError("no records, or cut off")
    if data[at:].strip(b"\0"):
        raise ValueError("something else behind the records")
    if at > _MOST:
        raise ValueError("too large")
    return data[:at]


def from_resources(data: bytes) -> bytes | None:
    """The records among Photoshop's resources, or None.

    Raises:
        ValueError: the records are damaged. (Damaged resources hold none.)
    """
    at = 0
    while data[at : at + 4] == _RESOURCE and at + 7 <= len(data):
        number, name_size = struct.unpack_from(">HB", data, at + 4)
        at += 6 + (name_size + 2) // 2 * 2  # the name and its length fill up an even number
        if at + 4 > len(data):
            return None
        size = struct.unpack_from(">I", data, at)[0]
        content = data[at + 4 : at + 4 + size]
        if number == _IPTC:
            if len(content) != size:
                raise ValueError("cut off")
            return checked(content) if content else None
        at += 4 + size + size % 2
    return None


def to_resources(iptc: bytes) -> bytes:
    """The records as a Photoshop resource."""
    head = _RESOURCE + struct.pack(">HxxI", _IPTC, len(iptc))
    return head + iptc + b"\0" * (len(iptc) % 2)


def from_hex(text: bytes) -> bytes:
    """A raw profile's content: an empty line, its kind, its size, and hexadecimals in lines.

    Raises:
        ValueError: it is damaged.
    """
    parts = text.split(b"\n", 3)
    if len(parts) != 4 or parts[0].strip():
        raise ValueError("not a raw profile")
    content = bytes.fromhex(parts[3].decode("ascii"))
    if len(content) != int(parts[2]):
        raise ValueError("cut off")
    return content


def to_hex(kind: bytes, content: bytes) -> bytes:
    """The reverse of :func:`from_hex`."""
    digits = content.hex().encode()
    lines = [digits[at : at + _LINE] for at in range(0, len(digits), _LINE)]
    return b"\n" + kind + b"\n%8d\n" % len(content) + b"\n".join(lines) + b"\n"

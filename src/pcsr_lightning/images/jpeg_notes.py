"""The captions of JPEG files: segments read, checked, and made."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from pcsr_lightning.images import iptc
from pcsr_lightning.images.notes import Notes

_APP0, _APP1, _APP2, _APP13, _COMMENT, _SCAN, _END = 0xE0, 0xE1, 0xE2, 0xED, 0xFE, 0xDA, 0xD9
_MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_GAIN_MAPS = (b"urn:iso:std:iso:ts:21496:-1\0", b"hdrgm:Version")
_MOST_SEGMENTS = 10_000
_MOST_BYTES, _MOST_COMMENTS = 2**24, 2**20
_ROOM = 65_533


def read_jpeg(file: BinaryIO) -> tuple[Notes, list[str]]:
    """IPTC and comments, and what is left out, a phrase each."""
    comments: list[bytes] = []
    resources: list[bytes] = []
    problems: list[str] = []
    left = _MOST_BYTES
    for marker, size, at in _segments(file):
        if marker not in (_APP1, _APP2, _APP13, _COMMENT) or size > left:
            continue
        left -= size
        file.seek(at)
        data = file.read(size)
        if marker in (_APP1, _APP2):
            if (lost := _lost(data)) is not None and lost not in problems:
                problems.append(lost)
        elif marker == _COMMENT:
            comments.append(data)
        elif data.startswith(iptc.PREFIX):
            # A resource too long for a segment goes on in the next.
            resources.append(data[len(iptc.PREFIX) :])
    try:
        found = iptc.from_resources(b"".join(resources))
    except ValueError:
        found = None
        problems.append("its damaged IPTC")
    kept = tuple(comment for comment in comments if comment.strip(b"\0 \n"))
    if sum(map(len, kept)) > _MOST_COMMENTS:
        kept = ()
        problems.append("its comments, which are too large")
    return Notes(iptc=found, comments=kept), problems


def _lost(data: bytes) -> str | None:
    """What of a segment is neither carried here nor read by libvips."""
    if data.startswith(_MORE_XMP):
        return "the part of its XMP that did not fit into one segment"
    if any(mark in data for mark in _GAIN_MAPS):
        return "its gain map for brighter screens"
    return None


def segment_bytes(notes: Notes) -> bytes:
    """The segments that hold the notes."""
    made = b""
    resources = b"" if notes.iptc is None else iptc.to_resources(notes.iptc)
    room = _ROOM - len(iptc.PREFIX)
    for at in range(0, len(resources), room):
        made += _segment(_APP13, iptc.PREFIX + resources[at : at + room])
    for comment in notes.comments:
        made += _segment(_COMMENT, comment[:_ROOM])
    return made


def place(file: BinaryIO) -> int:
    """Where they belong: behind JFIF, EXIF and XMP, which readers expect first."""
    behind = 2
    for marker, size, at in _segments(file):
        if marker not in (_APP0, _APP1):
            break
        behind = at + size
    return behind


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _segments(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Marker, size and place of each segment's content, up to the pixels."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return
        if head[1] == 0xFF:  # it may be repeated
            at += 1
            continue
        size = int.from_bytes(head[2:], "big")
        if head[1] in (_SCAN, _END) or size < 2:
            return
        yield head[1], size - 2, at + 4
        at += 2 + size

"""Picture files made for the tests, and those with captions and colour codes taken apart again."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import Picture, decode, encode, outline, read, written_by_rows

RGB = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
CAPTION, AUTHOR = "Grüße aus Delft", "A. Author"


def pillow(kind: str, image: Any = None, **options: Any) -> bytes:
    """A file that Pillow writes."""
    file = io.BytesIO()
    (Image.fromarray(RGB) if image is None else image).save(file, kind, **options)
    return file.getvalue()


def tiff(array: Any, **options: Any) -> bytes:
    """A file that tifffile writes."""
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def refused(path: Path | bytes, **options: Any) -> str:
    """The one line with which a file is refused."""
    reader: Any = decode if isinstance(path, bytes) else read
    with pytest.raises(PictureError) as caught:
        reader(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 450
    assert message.startswith("standard input: " if isinstance(path, bytes) else f"{path}: ")
    return message


def opened(data: bytes) -> Any:
    """The file as Pillow reads it."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def chunk(name: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(*before: tuple[bytes, bytes], after: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A PNG with chunks before and behind its pixels."""
    data = pillow("PNG")
    front, back = (b"".join(chunk(*c) for c in some) for some in (before, after))
    return data[:33] + front + data[33:-12] + back + data[-12:]


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """A PNG's chunks, their checksums looked at, in the order that the specification wants."""
    found, at = [], 8
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        content = data[at + 8 : at + 8 + size]
        assert data[at + 8 + size : at + 12 + size] == struct.pack(">I", zlib.crc32(name + content))
        found.append((name, content))
        at += 12 + size
    names = [name for name, _ in found]
    assert (names[0], names[-1]) == (b"IHDR", b"IEND")
    for colour in (b"cICP", b"gAMA", b"cHRM", b"sRGB"):
        assert names.count(colour) <= 1
        assert colour not in names or names.index(colour) < names.index(b"IDAT")
    return found


def segments(data: bytes) -> list[tuple[int, bytes]]:
    """A JPEG's segments up to its pixels."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        assert data[at] == 0xFF
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((data[at + 1], data[at + 4 : at + 2 + size]))
        at += 2 + size
    return found


def jpeg_with(*more: tuple[int, bytes]) -> bytes:
    """A JPEG with segments behind its first one."""
    data = pillow("JPEG", quality=95)
    made = b"".join(struct.pack(">BBH", 255, m, len(body) + 2) + body for m, body in more)
    return data[:20] + made + data[20:]


def record(number: int, text: str) -> bytes:
    """A record of IPTC's second kind."""
    return struct.pack(">BBBH", 0x1C, 2, number, len(text.encode())) + text.encode()


IPTC = b"\x1c\x01\x5a\x00\x03\x1b%G" + record(120, CAPTION) + record(80, AUTHOR)


def resource(number: int, body: bytes, name: bytes = b"") -> bytes:
    """A resource of Photoshop's."""
    named = bytes([len(name)]) + name
    named += b"\0" * (len(named) % 2)
    head = b"8BIM" + struct.pack(">H", number) + named
    return head + struct.pack(">I", len(body)) + body + b"\0" * (len(body) % 2)


PHOTOSHOP = (
    resource(0x03ED, b"x" * 16) + resource(0x0404, IPTC, b"odd") + resource(0x040C, b"t" * 9)
)

TEXTS = (
    (b"tEXt", b"Title\0Caf\xe9"),
    (b"zTXt", b"Author\0\0" + zlib.compress(b"A. Author" * 50)),
    (b"iTXt", b"Copyright\0\0\0de\0Rechte\0" + "© Grüße".encode()),
    (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress("好".encode() * 90)),
    (b"tEXt", b"Title\0a second one"),
)
LATE = ((b"tEXt", b"parameters\0steps: 20"),)
GAMMA = (b"gAMA", struct.pack(">I", 100_000))
CORNERS = (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
PQ = (b"cICP", bytes([9, 16, 0, 1]))
SRGB = (
    (b"sRGB", b"\0"),
    (b"gAMA", struct.pack(">I", 45455)),
    (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
)


def retold(avif: bytes, primaries: int, transfer: int) -> bytes:
    """An AVIF of Pillow's whose nclx box tells other codes."""
    at = avif.index(b"nclx")
    return avif[: at + 4] + struct.pack(">HH", primaries, transfer) + avif[at + 8 :]


def raw_profile(kind: str, content: bytes) -> tuple[bytes, bytes]:
    """As ImageMagick writes them."""
    text = f"\n{kind}\n{len(content):8}\n{content.hex()}\n".encode()
    return b"zTXt", f"Raw profile type {kind}\0\0".encode() + zlib.compress(text)


def enlarged(data: bytes) -> Picture:
    """The file called `in`, twice as large."""
    small = decode(data, name="in")
    return small.upscaled(small.rgb.repeat(1, 2, 2), None)


def large(format_: str, data: bytes, tmp_path: Path, by_rows: bool) -> bytes:
    """The picture twice as large, written in both of the ways there are."""
    picture = enlarged(data)
    if not by_rows:
        return encode(picture, format_, name="out")
    path = tmp_path / f"out.{format_}"
    with written_by_rows(outline(decode(data), picture.rgb.shape[-2:]), path) as put:
        put(picture.rgb[:, :7])
        put(picture.rgb[:, 7:])
    return path.read_bytes()

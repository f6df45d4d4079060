"""TIFF values of another type than their tags' are not passed on."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.images.made_files import RGB, opened, tiff

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import Picture, decode, encode

RIGHT: list[Any] = [
    (0x010F, 2, 0, "A maker", True),
    (0x4746, 3, 1, 5, True),
    (0x9C9B, 1, 4, b"t\0\0\0", True),
    (0x013E, 5, 2, (3127, 10000, 3290, 10000), True),
]
WRONG: list[Any] = [
    (0x0131, 4, 1, 77, True),  # software, a number
    (0x013B, 5, 1, (1, 2), True),  # artist, a fraction
    (0x4749, 2, 0, "stars", True),  # rating, a text
    (0x013F, 5, 2, (1, 2, 3, 4), True),  # primaries, a third of them
]


def with_tags(tags: list[Any]) -> bytes:
    return tiff(RGB, photometric="rgb", metadata=None, software=False, extratags=tags)


@pytest.mark.parametrize("format_", ["tif", "png", "jpg"])
def test_values_of_another_type_are_said(format_: str, caplog: pytest.LogCaptureFixture) -> None:
    picture = decode(with_tags(RIGHT + WRONG), name="in")
    assert caplog.messages == [
        "in: read without its values of another type than their tags' "
        "(0x0131, 0x013B, 0x013F, 0x4749)."
    ]
    caplog.clear()
    found = opened(encode(picture, format_)).getexif()
    assert found[0x010F].rstrip("\0") == "A maker"
    assert found[0x4746] == 5
    assert [float(x) for x in found[0x013E]] == pytest.approx([0.3127, 0.329])
    assert not {tag for tag, *_ in WRONG} & set(found)
    assert caplog.messages == []


def block(first: bytes, exif: bytes, gps: bytes = b"", order: str = "<") -> bytes:
    """An EXIF block of three directories, from their entries without pointers."""
    at = 8 + 2 + len(first) + 24 + 4
    pointers = struct.pack(order + "HHII", 0x8769, 4, 1, at)
    pointers += struct.pack(order + "HHII", 0x8825, 4, 1, at + 2 + len(exif) + 4)
    data = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    for entries in (first + pointers, exif, gps):
        data += struct.pack(order + "H", len(entries) // 12) + entries + bytes(4)
    return data


def row(tag: int, kind: int, count: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")


def test_directories_below_are_looked_at_too(caplog: pytest.LogCaptureFixture) -> None:
    first = row(0x010F, 2, 4, b"Abc\0") + row(0x0131, 3, 1, b"\1\0")
    exif = (
        row(0x8827, 3, 1, b"\x64\0")  # sensitivity, as it should be
        + row(0x9003, 4, 1, b"\1")  # time, a number
        + row(0x9209, 2, 4, b"yes\0")  # flash, a text
        + row(0x9000, 7, 2, b"02")  # version, half of it
        + row(0xC0DE, 13, 1, b"\7")  # nobody knows what this is
    )
    gps = row(0x0001, 2, 2, b"N\0") + row(0x0005, 2, 4, b"sea\0")
    picture = Picture(torch.rand(3, 8, 8), exif=block(first, exif, gps))
    data = encode(picture, "tif", name="out")
    assert caplog.messages == [
        "out: written without EXIF values of another type than their tags' "
        "(0x0131, 0x9003, 0x9209, 0x9000, 0x0005)."
    ]
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        found = {tag.code: tag.value for tag in file.pages[0].tags}
    assert found[0x010F] == "Abc"
    assert 0x0131 not in found
    assert found[34665]["ISOSpeedRatings"] == 100
    assert len(found[34665]) == 2
    assert found[34853] == {"GPSLatitudeRef": "N"}


@given(
    tag=st.sampled_from(
        [0x10E, 0x10F, 0x131, 0x132, 0x8298, 0x83BB, 0x8649, 0x9C9B, 0x4746, 0x13E]
    ),
    kind=st.integers(0, 20),
    count=st.integers(0, 9),
    value=st.binary(max_size=40),
)
@settings(max_examples=150, deadline=None)
def test_no_value_is_too_odd(tag: int, kind: int, count: int, value: bytes) -> None:
    """Whatever a tag holds: read or refused, and what is written can be read by others."""
    data = bytearray(with_tags([(tag, 1, 40, value.ljust(40, b"\0"), True)]))
    at = data.index(struct.pack("<HHI", tag, 1, 40))
    struct.pack_into("<HHI", data, at, tag, kind, count)
    try:
        picture = decode(bytes(data))
    except PictureError:
        return
    for format_ in ("tif", "jpg"):
        with Image.open(io.BytesIO(encode(picture, format_))) as image:
            image.load()
            for found in image.getexif().values():
                assert found is not None
    with tifffile.TiffFile(io.BytesIO(encode(picture, "tif"))) as file:
        assert np.array_equal(file.asarray(), RGB)

"""IPTC and other segments of JPEG and TIFF files: kept where the format holds them, or named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, IptcImagePlugin
from tests.images.made_files import (
    AUTHOR,
    CAPTION,
    IPTC,
    PHOTOSHOP,
    RGB,
    jpeg_with,
    large,
    opened,
    resource,
    segments,
)

from pcsr_lightning.images import Metadata, Picture, decode, encode

MARK = b"Photoshop 3.0\0"


def tiff(tag: int, kind: int, body: bytes, order: str = "<") -> bytes:
    file = io.BytesIO()
    extra = [(tag, kind, len(body), body, True)]
    options: Any = {"photometric": "rgb", "metadata": None, "extratags": extra}
    tifffile.imwrite(file, RGB, byteorder=order, **options)
    return file.getvalue()


IPTC_FILES = {
    "jpeg": jpeg_with((0xED, MARK + PHOTOSHOP)),
    "jpeg in parts": jpeg_with((0xED, MARK + PHOTOSHOP[:50]), (0xED, MARK + PHOTOSHOP[50:])),
    "jpeg besides": jpeg_with((0xED, b"Adobe_CM\0x"), (0xED, MARK + PHOTOSHOP)),
    "tiff": tiff(33723, 7, IPTC),
    "tiff bytes": tiff(33723, 1, IPTC),
    "tiff big-endian": tiff(33723, 7, IPTC, ">"),
    "tiff of Photoshop": tiff(34377, 7, PHOTOSHOP),
}


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("format_", ["jpg", "tif"])
@pytest.mark.parametrize("source", IPTC_FILES)
def test_iptc_stays(source: str, format_: str, by_rows: bool, tmp_path: Path) -> None:
    found = large(format_, IPTC_FILES[source], tmp_path, by_rows)
    for data in (found, encode(decode(found), "jpg"), encode(decode(found), "tif")):
        told: Any = IptcImagePlugin.getiptcinfo(opened(data))
        assert told[(2, 120)].decode() == CAPTION
        assert told[(2, 80)].decode() == AUTHOR
    assert opened(found).size == (26, 18)


def test_what_photoshop_keeps_beside_iptc_stays() -> None:
    resources = resource(1034, b"\1") + resource(1035, b"https://example.org")
    resources += resource(0x0404, IPTC, b"odd")
    data = jpeg_with((0xED, MARK + resources))
    for format_, marker in (("jpg", 0xED), ("tif", None)):
        found = encode(decode(data), format_)
        if marker is None:
            assert opened(found).tag_v2[34377] == resources
        else:
            assert (marker, MARK + resources) in segments(found)


def test_iptc_that_is_too_large_is_said(caplog: pytest.LogCaptureFixture) -> None:
    resources = resource(0x0404, IPTC.ljust(150_000, b"\0"))
    picture = Picture(torch.rand(3, 8, 8), metadata=Metadata(iptc=resources))
    assert decode(encode(picture, "jpg", name="out")).metadata.iptc is None
    assert caplog.messages == ["out: not carried over: IPTC (too large)."]
    assert decode(encode(picture, "tif")).metadata.iptc == resources


def test_iptc_and_exif_share_a_tiff() -> None:
    exif = Image.Exif()
    exif[0x010F], exif.get_ifd(0x8769)[0x9003] = "A maker", "2026:01:02 03:04:05"
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    picture = Picture(torch.rand(3, 8, 8), metadata=Metadata(exif=block, iptc=PHOTOSHOP))
    with tifffile.TiffFile(io.BytesIO(encode(picture, "tif"))) as file:
        found = {tag.code: tag.value for tag in file.pages[0].tags}
    assert found[33723] == IPTC
    assert found[0x010F] == "A maker"
    assert found[34665]["DateTimeOriginal"] == "2026:01:02 03:04:05"


def test_what_only_jpeg_has_is_said(caplog: pytest.LogCaptureFixture) -> None:
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><a hdrgm:Version='1.0'/></x:xmpmeta>"
    more = b"http://ns.adobe.com/xmp/extension/\0" + bytes(40)
    iso = b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4)
    comments = ((0xFE, b"hello"), (0xFE, b" \0"))
    other = ((0xE3, b"\x1b[2Jsteers\0"), (0xE2, b"MPF\0"))
    segments = (0xE1, xmp), (0xE1, more), (0xE1, more), (0xE2, iso), *comments, *other
    picture = decode(jpeg_with(*segments))
    assert picture.metadata.xmp is not None
    encode(picture, "jpg", name="out")
    assert caplog.messages == [
        "out: not carried over: gain map for brighter screens, the part of XMP beyond one segment, "
        "comment, APP3 '?[2Jsteers', further pictures."
    ]


@pytest.mark.parametrize("format_", ["png", "webp", "bmp", "avif"])
def test_formats_without_iptc_say_so(format_: str, caplog: pytest.LogCaptureFixture) -> None:
    data = encode(decode(IPTC_FILES["jpeg"]), format_, name="out")
    assert caplog.messages == ["out: not carried over: IPTC."]
    assert np.isfinite(decode(data).rgb.numpy()).all()

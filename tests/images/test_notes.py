"""Captions and colour codes: kept where the format holds them, or their loss said."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
import torch
from PIL import Image, IptcImagePlugin
from tests.images.made_files import (
    AUTHOR,
    CAPTION,
    CORNERS,
    GAMMA,
    IPTC,
    LATE,
    PHOTOSHOP,
    PQ,
    RGB,
    SRGB,
    TEXTS,
    chunks,
    colour_codes,
    enlarged,
    jpeg_with,
    large,
    notes_of,
    opened,
    pillow,
    png_with,
    raw_profile,
    record,
    resource,
    retold,
    segments,
)

from pcsr_lightning.images import Picture, decode, encode
from pcsr_lightning.images.notes import Notes

SIGNED = "in: read without "


# IPTC


def iptc_files() -> dict[str, bytes]:
    long = IPTC + b"\0" * (-len(IPTC) % 4)
    turned = np.frombuffer(long, ">u4").astype("<u4").tobytes()

    def tiff(tag: int, kind: int, size: int, body: bytes, order: str = "<") -> bytes:
        file = io.BytesIO()
        extra = [(tag, kind, len(body) // size, body, True)]
        tifffile.imwrite(file, RGB, photometric="rgb", extratags=extra, byteorder=order)
        return file.getvalue()

    parts = PHOTOSHOP[:50], PHOTOSHOP[50:]
    return {
        "jpeg": jpeg_with((0xED, b"Photoshop 3.0\0" + PHOTOSHOP)),
        "jpeg in parts": jpeg_with(*[(0xED, b"Photoshop 3.0\0" + part) for part in parts]),
        "jpeg besides": jpeg_with((0xED, b"Adobe_CM\0x"), (0xED, b"Photoshop 3.0\0" + PHOTOSHOP)),
        "tiff": tiff(33723, 7, 1, IPTC),
        "tiff bytes": tiff(33723, 1, 1, IPTC),
        "tiff numbers": tiff(33723, 4, 4, long),
        "tiff turned": tiff(33723, 4, 4, turned),
        "tiff big-endian": tiff(33723, 7, 1, IPTC, ">"),
        "tiff of Photoshop": tiff(34377, 7, 1, PHOTOSHOP),
        "png": png_with(raw_profile("iptc", PHOTOSHOP)),
        "png 8bim": png_with(raw_profile("8bim", PHOTOSHOP)),
        "png bare": png_with(raw_profile("iptc", IPTC)),
    }


@pytest.mark.parametrize("kind", iptc_files())
def test_iptc_is_read(kind: str) -> None:
    assert notes_of(iptc_files()[kind]) == Notes(iptc=IPTC)


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("format_", ["jpg", "tif", "png"])
@pytest.mark.parametrize("source", ["jpeg", "tiff"])
def test_iptc_stays(
    source: str, format_: str, by_rows: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = large(format_, iptc_files()[source], tmp_path, by_rows)
    assert caplog.messages == []
    assert notes_of(found) == Notes(iptc=IPTC)
    again = encode(decode(found), "jpg") if format_ == "png" else found
    told: Any = IptcImagePlugin.getiptcinfo(opened(again))
    assert told[(2, 120)].decode() == CAPTION
    assert told[(2, 80)].decode() == AUTHOR
    assert opened(again).size == (26, 18)
    if format_ != "png":
        assert bytes(pyvips.Image.new_from_buffer(found, "").get("iptc-data")).count(IPTC) == 1


def test_iptc_longer_than_a_segment() -> None:
    long = IPTC + struct.pack(">BBBHI", 0x1C, 2, 202, 0x8004, 150_000) + b"\xff" * 150_000
    picture = Picture(torch.rand(3, 8, 8), notes=Notes(iptc=long))
    data = encode(picture, "jpg")
    parts = [body for marker, body in segments(data) if marker == 0xED]
    assert max(map(len, parts)) == 65_533
    assert all(part.startswith(b"Photoshop 3.0\0") for part in parts)
    joined = b"".join(part[14:] for part in parts)
    assert joined == resource(0x0404, long)
    assert notes_of(data) == Notes(iptc=long)


def test_iptc_and_exif_share_a_tiff() -> None:
    exif = Image.Exif()
    exif[0x010F], exif.get_ifd(0x8769)[0x9003] = "A maker", "2026:01:02 03:04:05"
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    picture = Picture(torch.rand(3, 8, 8), exif=block, notes=Notes(iptc=IPTC))
    with tifffile.TiffFile(io.BytesIO(encode(picture, "tif"))) as file:
        found = {tag.code: tag.value for tag in file.pages[0].tags}
    assert found[33723] == IPTC
    assert found[0x010F] == "A maker"
    assert found[34665]["DateTimeOriginal"] == "2026:01:02 03:04:05"


@pytest.mark.parametrize(
    "records",
    [IPTC[:-1], IPTC + b"junk", b"\x1c\x02", record(5, "x")[:4] + b"\xff\xff", b"\x1c" * 9,
     b"\x1c\x02\x05\xff\xff" + b"\xff" * 20, IPTC + record(5, "x" * 30_000) * 36],
    ids=lambda r: f"{len(r)} bytes",
)  # fmt: skip
def test_damaged_iptc_is_said(records: bytes, caplog: pytest.LogCaptureFixture) -> None:
    file = io.BytesIO()
    extra = [(33723, 7, len(records), records, True)]
    tifffile.imwrite(file, RGB, photometric="rgb", extratags=extra)
    assert notes_of(file.getvalue()) == Notes()
    body = resource(0x0404, records)
    parts = [body[at : at + 65_000] for at in range(0, len(body), 65_000)]
    data = jpeg_with(*[(0xED, b"Photoshop 3.0\0" + part) for part in parts])
    assert notes_of(data) == Notes()
    assert caplog.messages == [SIGNED + "its damaged IPTC."] * 2


# Comments of JPEG files


def test_comments_of_jpeg_stay(caplog: pytest.LogCaptureFixture) -> None:
    texts = [b"first\0", "Grüße".encode(), b"caf\xe9 \0 bar"]
    data = jpeg_with(*[(0xFE, text) for text in texts], (0xFE, b" \0"))
    assert notes_of(data).comments == tuple(texts)
    again = encode(enlarged(data), "jpg")
    assert [body for marker, body in segments(again) if marker == 0xFE] == texts
    assert opened(again).info["comment"] == texts[-1]
    made = [c for c in chunks(encode(enlarged(data), "png")) if c[0] in (b"tEXt", b"iTXt")]
    assert made == [
        (b"tEXt", b"Comment\0first"),
        (b"iTXt", b"Comment\0\0\0\0\0" + "Grüße".encode()),
        (b"tEXt", b"Comment\0caf\xe9   bar"),
    ]
    assert caplog.messages == []


def test_captions_of_jpeg_come_behind_exif_and_profile() -> None:
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    notes = Notes(iptc=IPTC, comments=(b"hello",))
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    data = encode(Picture(torch.rand(3, 8, 8), exif=block, xmp=b"<x/>", notes=notes), "jpg")
    assert [marker for marker, _ in segments(data)][:5] == [0xE0, 0xE1, 0xE1, 0xED, 0xFE]
    assert opened(data).getexif()[0x010F].rstrip("\0") == "A maker"


def test_what_only_jpeg_has_is_said(caplog: pytest.LogCaptureFixture) -> None:
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><a hdrgm:Version='1.0'/></x:xmpmeta>"
    more = b"http://ns.adobe.com/xmp/extension/\0" + bytes(40)
    iso = b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4)
    picture = decode(jpeg_with((0xE1, xmp), (0xE1, more), (0xE1, more), (0xE2, iso)), name="in")
    assert picture.xmp is not None
    assert caplog.messages == [
        SIGNED + "its gain map for brighter screens.",
        SIGNED + "the part of its XMP that did not fit into one segment.",
    ]


# Colour codes of AVIF


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_colour_codes_go_into_avif_and_the_pixels_stay(bits: int, alpha: bool) -> None:
    values = torch.rand(4, 64, 48, generator=torch.Generator().manual_seed(0))
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    alpha_1hw = values[3:] if alpha else None
    picture = Picture(values[:3], alpha_1hw, bits, exif=block, xmp=b"<x/>")
    bright = replace(picture, notes=Notes(cicp=(9, 16, True)))
    plain, told = encode(picture, "avif"), encode(bright, "avif")
    assert colour_codes(told) == [(9, 16, 6, 0x80)]
    back, usual = decode(told), decode(plain)
    assert back.notes.cicp == (9, 16, True)
    assert torch.equal(back.rgb, usual.rgb)
    assert back.xmp == usual.xmp == b"<x/>"
    assert back.exif == usual.exif
    if alpha:
        assert back.alpha is not None
        assert usual.alpha is not None
        assert torch.equal(back.alpha, usual.alpha)
    # Pillow's decoder is another one.
    assert np.array_equal(np.asarray(opened(told)), np.asarray(opened(plain)))
    assert opened(told).getexif()[0x010F].rstrip("\0") == "A maker"


@pytest.mark.parametrize("by_rows", [False, True])
def test_colour_codes_go_from_avif_to_png_and_back(
    by_rows: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = retold(pillow("AVIF"), 12, 16)
    assert notes_of(data).cicp == (12, 16, True)
    as_png = encode(enlarged(data), "png")
    assert (b"cICP", bytes([12, 16, 0, 1])) in chunks(as_png)
    assert colour_codes(encode(decode(as_png), "avif")) == [(12, 16, 6, 0x80)]
    assert colour_codes(large("avif", data, tmp_path, by_rows)) == [(12, 16, 6, 0x80)]
    assert caplog.messages == []


@pytest.mark.parametrize("codes", [(1, 13), (2, 2), (1, 2), (2, 13), (300, 16)])
def test_codes_that_tell_nothing_new(codes: tuple[int, int]) -> None:
    assert notes_of(retold(pillow("AVIF"), *codes)) == Notes()


# What a format cannot hold


@pytest.mark.parametrize("format_", ["jpg", "webp", "tif", "bmp", "avif"])
def test_what_png_loses_elsewhere(format_: str, caplog: pytest.LogCaptureFixture) -> None:
    name = {"jpg": "JPEG", "webp": "WebP", "tif": "TIFF", "bmp": "BMP", "avif": "AVIF"}[format_]
    encode(decode(png_with(*TEXTS, GAMMA, CORNERS, after=LATE)), format_, name="out")
    names = "Title, Author, Copyright, Comment and 1 more"
    said = [
        f"out: {name} holds no PNG texts ({names}); written without it.",
        f"out: {name} holds no gamma or primaries (gAMA and cHRM); written without it.",
    ]
    assert caplog.messages == said
    caplog.clear()
    encode(decode(png_with(*SRGB)), format_, name="out")
    encode(decode(png_with(*SRGB[1:])), format_, name="out")
    encode(decode(png_with((b"cICP", bytes([1, 13, 0, 1])), GAMMA)), format_, name="out")
    assert caplog.messages == []
    encode(decode(png_with(PQ, GAMMA)), format_, name="out")
    said = [f"out: {name} holds no colour codes (primaries 9, transfer 16); written without it."]
    assert caplog.messages == ([] if format_ == "avif" else said)
    caplog.clear()
    encode(decode(png_with((b"cICP", bytes([9, 16, 0, 0])))), format_, name="out")
    assert caplog.messages == [said[0].replace("16)", "16, narrow range)")]


@pytest.mark.parametrize("format_", ["webp", "bmp", "avif", "tif"])
def test_what_jpeg_loses_elsewhere(format_: str, caplog: pytest.LogCaptureFixture) -> None:
    data = jpeg_with((0xED, b"Photoshop 3.0\0" + PHOTOSHOP), (0xFE, b"hello"))
    encode(decode(data), format_, name="out")
    lost = ["comment"] if format_ == "tif" else ["IPTC", "comment"]
    assert [message.split(" holds no ")[1] for message in caplog.messages] == [
        f"{what}; written without it." for what in lost
    ]

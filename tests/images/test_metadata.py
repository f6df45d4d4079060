"""EXIF, XMP, resolution and profiles: kept, brought up to date, or their loss said."""

from __future__ import annotations

import io
import logging
import struct
import warnings
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from tests.images.matrix_inputs import grey_profile

from pcsr_lightning.images import Metadata, Picture, decode, encode, encoded_by_rows, outline

NO_PROFILE = "a colour profile that does not fit the pixels"
FORMATS = ["png", "jpg", "webp", "tif", "avif"]
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6" b="6"/></x:xmpmeta>'


def rgb(h: int = 6, w: int = 8) -> torch.Tensor:
    return torch.linspace(0, 1, 3 * h * w).view(3, h, w)


def camera_exif(order: str = "<", thumbnail: bytes = b"\xff\xd8thumb\xff\xd9") -> bytes:
    """As cameras write it: a maker note that points into the block, a thumbnail at its end."""
    note_at = 8 + 2 + 6 * 12 + 4 + 16 + 2 + 4 * 12 + 4
    note = b"NOTE" + struct.pack(order + "I", note_at) + b"private"
    note += b"\0" * (len(note) % 2)
    below_at = 8 + 2 + 6 * 12 + 4 + 16
    ratios_at = below_at - 16
    second_at = note_at + len(note)
    thumbnail_at = second_at + 2 + 2 * 12 + 4

    def row(tag: int, kind: int, count: int, value: bytes) -> bytes:
        return struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")

    def short(value: int) -> bytes:
        return struct.pack(order + "H", value)

    def long(value: int) -> bytes:
        return struct.pack(order + "I", value)

    data = (b"II" if order == "<" else b"MM") + short(42) + long(8)
    data += short(6) + row(0x010F, 2, 4, b"Abc\0") + row(0x0112, 3, 1, short(6))
    data += row(0x011A, 5, 1, long(ratios_at)) + row(0x011B, 5, 1, long(ratios_at + 8))
    data += row(0x0128, 3, 1, short(3)) + row(0x8769, 4, 1, long(below_at)) + long(second_at)
    data += struct.pack(order + "4I", 100, 1, 200, 1)
    data += short(4) + row(0x927C, 7, len(note), long(note_at)) + row(0xA002, 3, 1, short(8))
    data += row(0xA003, 3, 1, short(6)) + row(0xC0DE, 2, 4, b"own\0") + long(0) + note
    data += short(2) + row(0x0201, 4, 1, long(thumbnail_at))
    return data + row(0x0202, 4, 1, long(len(thumbnail))) + long(0) + thumbnail


def pillow(data: bytes) -> tuple[Any, dict[str, Any]]:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.getexif(), image.info


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("format_", ["png", "jpg", "webp", "avif"])
def test_exif_is_brought_up_to_date(
    format_: str, order: str, caplog: pytest.LogCaptureFixture
) -> None:
    exif = camera_exif(order)
    picture = Picture(rgb(), metadata=Metadata(exif=exif, resolution=(10.0, 2.0)))
    large = picture.upscaled(torch.rand(3, 70_000 if format_ == "png" else 18, 16), None)
    data = encode(large, format_, name="out")
    found, _ = pillow(data)
    inner = found.get_ifd(0x8769)
    assert found[0x010F].rstrip("\0") == "Abc"
    assert found.get(0x0112, 1) == 1
    assert (inner[0xA002], inner[0xA003]) == (16, large.rgb.shape[1])  # 70,000 is no SHORT
    assert inner[0x927C].startswith(b"NOTE")
    assert found[0x0128] == 2
    across, down = float(found[0x011A]), float(found[0x011B])
    assert (across, down) == pytest.approx((508, 2 * 25.4 * large.rgb.shape[1] / 6), rel=1e-5)
    assert b"thumb" not in data
    assert found.get_ifd(1) == {}
    assert caplog.messages == ["out: not carried over: 0xC0DE."]  # a private tag


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_goes_into_tiff_and_comes_out_again(order: str) -> None:
    data = encode(
        Picture(rgb(), metadata=Metadata(exif=camera_exif(order), resolution=(10, 20))), "tif"
    )
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = {tag.name: tag.value for tag in file.pages[0].tags}
        assert len(file.pages) == 1
        assert np.array_equal(file.asarray(), np.rint(rgb().permute(1, 2, 0).numpy() * 255))
    assert tags["Make"] == "Abc"
    assert tags["ExifTag"]["PixelXDimension"] == 8
    assert tags["ExifTag"]["MakerNote"].startswith(b"NOTE")
    assert pillow(data)[0].get_ifd(0x8769)[0xC0DE].rstrip("\0") == "own"
    found, _ = pillow(encode(decode(data), "jpg"))
    assert found[0x010F].rstrip("\0") == "Abc"
    assert (found[0x011A], found[0x011B]) == (254, 508)


def test_the_line_of_losses_is_not_too_long(caplog: pytest.LogCaptureFixture) -> None:
    tags = [(0xC000 + i, 3, 1, i, True) for i in range(40)]
    file = io.BytesIO()
    options: Any = {"photometric": "rgb", "metadata": None, "extratags": tags}
    tifffile.imwrite(file, np.zeros((6, 8, 3), np.uint8), **options)
    encode(decode(file.getvalue()), "png", name="out")
    [line] = caplog.messages
    assert line.endswith(", 0xC00B and 28 more.")


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
def test_exif_of_a_tiff_goes_into_others(order: str, big: bool) -> None:
    tags = [(0x010F, 2, 0, "A maker", True), (0x013B, 2, 0, "Grüße".encode("latin-1"), True)]
    file = io.BytesIO()
    options: Any = {"photometric": "rgb", "metadata": None, "extratags": tags, "bigtiff": big}
    tifffile.imwrite(file, np.zeros((6, 8, 3), np.uint8), byteorder=order, **options)
    picture = decode(file.getvalue())
    for format_ in ("tif", "jpg"):
        found, _ = pillow(encode(picture, format_))
        assert found[0x010F].rstrip("\0") == "A maker"
        assert found[0x013B].rstrip("\0") == "Grüße"


def test_tags_of_a_tiff_that_are_lost_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """A tag of no known meaning, a value that is no text, and what describes the old pixels."""
    scale = (0xC0DE, 12, 3, (10.0, 10.0, 0.0), True)
    wrong = (0x013B, 5, 1, (1, 2), True)
    file = io.BytesIO()
    tifffile.imwrite(
        file, np.zeros((6, 8, 3), np.uint8), photometric="rgb", extratags=[scale, wrong]
    )
    for format_ in ("tif", "png"):
        data = encode(decode(file.getvalue()), format_, name="out")
        assert caplog.messages == ["out: not carried over: 0xC0DE, Artist."]
        assert not {0x010E, 0x013B, 0xC0DE} & set(pillow(data)[0])
        caplog.clear()


@pytest.mark.parametrize("format_", [*FORMATS, "bmp"])
@pytest.mark.parametrize("with_exif", [False, True])
def test_the_picture_keeps_its_physical_size(format_: str, with_exif: bool) -> None:
    exif = camera_exif() if with_exif else None
    small = decode(
        encode(Picture(rgb(), metadata=Metadata(exif=exif, resolution=(11.811, 5.9055))), format_)
    )
    assert small.metadata.resolution == pytest.approx((11.811, 5.9055), rel=1e-4)
    large = small.upscaled(torch.rand(3, 15, 20), None)
    back = decode(encode(large, format_)).metadata.resolution
    assert back is not None
    assert (20 / back[0], 15 / back[1]) == pytest.approx((8 / 11.811, 6 / 5.9055), rel=1e-4)


@pytest.mark.parametrize("format_", [*FORMATS, "bmp"])
def test_no_resolution_is_made_up(format_: str) -> None:
    assert decode(encode(Picture(rgb()), format_)).metadata.resolution is None


def test_resolution_turns_with_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (8, 6)).save(file, "PNG", exif=exif, dpi=(254, 508))
    assert decode(file.getvalue()).metadata.resolution == pytest.approx((20, 10), abs=1e-3)


@pytest.mark.parametrize("format_", FORMATS)
def test_xmp_is_kept_upright(format_: str) -> None:
    large = Picture(rgb(), metadata=Metadata(xmp=XMP))
    found = decode(encode(large, format_)).metadata.xmp
    assert found == XMP.replace(b'Orientation="6"', b'Orientation="1"')


def test_xmp_is_brought_up_to_date() -> None:
    before = (
        b"<x><tiff:Orientation>8</tiff:Orientation><exif:PixelXDimension>8</exif:PixelXDimension>"
        b"<xmp:Thumbnails><rdf:Alt>\nabc</rdf:Alt></xmp:Thumbnails><dc:title>8</dc:title></x>"
    )
    picture = Picture(rgb(6, 80), metadata=Metadata(xmp=before))
    assert decode(encode(picture, "png")).metadata.xmp == (
        b"<x><tiff:Orientation>1</tiff:Orientation><exif:PixelXDimension>80</exif:PixelXDimension>"
        b"<dc:title>8</dc:title></x>"
    )


@pytest.mark.parametrize("format_", ["png", "jpg", "webp", "avif"])
@pytest.mark.parametrize(("size", "fits"), [(65_000, True), (65_500, False), (10**6, False)])
def test_exif_of_any_size(
    format_: str, size: int, fits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    exif = Image.Exif()
    exif[0x010F], exif.get_ifd(0x8769)[0x927C] = "Abc", b"x" * size
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    picture = Picture(rgb(), metadata=Metadata(exif=block, resolution=(10, 20)))
    found, _ = pillow(encode(picture, format_, name="out"))
    assert found[0x010F].rstrip("\0") == "Abc"
    assert (0x927C in found.get_ifd(0x8769)) == fits
    assert caplog.messages == ([] if fits else ["out: not carried over: MakerNote."])


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("exif", [b"", b"Exif? No.", b"II*\0\xff\xff\0\0"])
def test_damaged_exif_is_said(exif: bytes, format_: str, caplog: pytest.LogCaptureFixture) -> None:
    picture = Picture(rgb(), metadata=Metadata(exif=exif, resolution=(10, 10)))
    data = encode(picture, format_, name="out")
    assert decode(data).metadata.resolution == pytest.approx((10, 10))
    assert caplog.messages == ["out: not carried over: EXIF (damaged)."]


def test_bmp_says_what_it_cannot_hold(caplog: pytest.LogCaptureFixture) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    metadata = Metadata(icc=icc, exif=camera_exif(), xmp=XMP)
    encode(Picture(rgb(), metadata=metadata), "bmp", name="out")
    assert caplog.messages == ["out: not carried over: colour profile, EXIF, XMP."]


@pytest.mark.parametrize("size", [60_000, 60_001, 10**6])
def test_xmp_of_any_size(size: int, caplog: pytest.LogCaptureFixture) -> None:
    picture = Picture(rgb(), metadata=Metadata(xmp=XMP.ljust(size)))
    assert (decode(encode(picture, "jpg")).metadata.xmp is None) == (size > 60_000)
    assert ("not carried over: XMP (too large)." in caplog.text) == (size > 60_000)
    assert decode(encode(picture, "png")).metadata.xmp is not None


@given(
    at=st.integers(0, len(camera_exif()) - 1),
    junk=st.binary(min_size=1, max_size=8),
    cut=st.integers(0, len(camera_exif())),
    order=st.sampled_from("<>"),
)
@settings(max_examples=50, deadline=None)
def test_no_block_is_too_odd(at: int, junk: bytes, cut: int, order: str) -> None:
    """Whatever a block holds, a file is written, which others can read."""
    exif = camera_exif(order)
    for block in (exif[:at] + junk + exif[at + len(junk) :], exif[:cut]):
        metadata = Metadata(exif=block, resolution=(10.0, 20.0))
        for format_ in ("png", "tif"):
            data = encode(Picture(rgb(), metadata=metadata), format_)
            assert decode(data).metadata.resolution == pytest.approx((10, 20), rel=1e-3)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd values of known tags are passed on
                pillow(data)


def test_a_profile_for_other_channels_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    Image.new("L", (8, 6), 99).save(file, "TIFF", icc_profile=icc)
    picture = decode(file.getvalue(), name="grey.tif")
    assert picture.metadata.icc is None
    assert picture.grey
    encode(picture, "png", name="out")
    assert caplog.messages == [f"out: not carried over: {NO_PROFILE}."]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("space", [b"CMYK", b"GRAY", b"Lab "])
def test_a_profile_of_another_kind_is_said(
    kind: str, space: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    icc = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    icc[16:20] = space
    for profile in (bytes(icc), b"junk" * 50):
        file = io.BytesIO()
        Image.new("RGB", (8, 6), "teal").save(file, kind, icc_profile=profile, lossless=True)
        caplog.clear()
        picture = decode(file.getvalue(), name="in")
        assert picture.metadata.icc is None
        assert (picture.rgb - torch.tensor([0, 128, 128]).view(3, 1, 1) / 255).abs().max() < 0.02
        encode(picture, "png", name="out")
        assert caplog.messages == [f"out: not carried over: {NO_PROFILE}."]


@pytest.mark.parametrize("format_", ["webp", "avif"])
def test_grey_with_a_profile_becomes_srgb_where_grey_cannot_be_held(
    format_: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Gamma 1 in, so that the change is plain to see."""
    picture = Picture(
        torch.full((3, 8, 8), 0.2158), grey=True, metadata=Metadata(icc=grey_profile(1.0))
    )
    with caplog.at_level(logging.WARNING):
        back = decode(encode(picture, format_))
    assert "no profile for grey; brought to sRGB" in caplog.text
    assert back.metadata.icc is None
    assert (back.rgb - 0.502).abs().max() < 0.02


@pytest.mark.parametrize("suffix", [*FORMATS, "bmp"])
@pytest.mark.parametrize("by_rows", [False, True])
def test_a_resolution_beyond_belief_is_said(
    suffix: str,
    by_rows: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As PNG can name it; libvips would complain on stderr, and BMP has no room for it."""
    picture, stream = Picture(rgb(), metadata=Metadata(resolution=(2.8e6, 2.0))), io.BytesIO()
    if by_rows:
        with encoded_by_rows(outline(picture, (6, 8)), suffix, stream, name="out") as put:
            put(picture.rgb)
        data = stream.getvalue()
    else:
        data = encode(picture, suffix, name="out")
    [line] = caplog.messages
    assert line == "out: not carried over: a resolution of 2.8e+06 x 2 pixels per mm."
    assert capfd.readouterr().err == ""
    assert decode(data).metadata.resolution is None

"""Files that must not be read: each one clear line, at once, and little memory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import png
import pytest
import pyvips
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.images.made_files import RGB, pillow, refused, tiff

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import Metadata, Picture, decode, encode, read, write

# What is no picture, or not a file at all


def test_special_files_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "is a pipe, socket or device" in refused(tmp_path / "pipe.png")
    assert "is a pipe, socket or device" in refused(Path("/dev/zero"))
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    assert "circle" in refused(tmp_path / "circle.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    assert "no such file" in refused(tmp_path / "dangling.png")
    assert "is a folder" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "missing.png")
    assert "the name is too long" in refused(tmp_path / ("x" * 300 + ".png"))
    assert "null byte" in refused(tmp_path / "a\0b.png")


def test_a_file_without_permission(folder_of_a_plain_user: Path) -> None:
    path = folder_of_a_plain_user / "secret.png"
    path.write_bytes(pillow("PNG"))
    path.chmod(0)
    assert "no permission to read it" in refused(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (b"no picture at all\n" * 9, "not a picture, or of an unknown kind"),
        (pillow("GIF")[:20], "cannot read"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "an SVG file"),
        (b'<?xml version="1.0"?><svg/>', "an XML file"),
        (b"%PDF-1.4\n", "a PDF file"),
        (pillow("PPM"), "of an unknown kind"),
        (b"1,2,3\n4,5,6\n", "of an unknown kind"),  # libvips reads CSV
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "cannot read"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video, or a HEIF picture that is neither"),
        (pillow("JPEG2000"), "a JPEG 2000 file"),
        (b"\xff\xd8\xff", "cannot read"),
        (b"BM", "cannot read"),
    ],
)
def test_what_is_no_picture(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "any.png").write_bytes(data)
    with pytest.raises(PictureError, match=said):
        read(tmp_path / "any.png")
    refused(data)


def test_a_vips_file_is_not_read(tmp_path: Path) -> None:
    pyvips.Image.black(4, 4).write_to_file(str(tmp_path / "x.v"))
    (tmp_path / "x.v").rename(tmp_path / "x.png")
    assert "of an unknown kind" in refused(tmp_path / "x.png")


def test_names_are_never_options_and_files_never_from_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "a[page=7,shrink=2].png"
    for value in (10, 200):
        Image.new("L", (4, 4), value).save(path)
        assert round(float(read(path).rgb.mean()) * 255) == value
    write(read(path), tmp_path / "b[Q=1].jpg")
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "b[Q=1].jpg"]


def test_no_pixels_are_kept_from_one_picture_to_the_next() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decode(pillow("PNG", exif=exif))  # turned, and so once whole in memory
    encode(Picture(torch.rand(3, 9, 13), metadata=Metadata(resolution=(10, 10))), "png")
    assert pyvips.vips_lib.vips_cache_get_size() == 0


# Content that is not understood


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tiff(RGB.astype(np.float32), photometric="rgb"), "channels of type float"),
        (tiff(RGB.astype(np.uint32), photometric="rgb"), "channels of type uint"),
        (tiff(RGB.astype(np.int16), photometric="rgb"), "channels of type short"),
        (tiff(RGB, photometric="cielab"), "it is in Lab colours; save it as RGB"),
        (tiff(RGB, photometric="ycbcr"), "YCbCr colours without JPEG compression"),
        (tiff(np.concatenate([RGB, RGB], 2), photometric="rgb"), "6 channels"),
    ],
)
def test_content_that_is_not_understood(data: bytes, said: str) -> None:
    assert said in refused(data)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("more", [0, 1])
def test_inks_become_srgb(bits: int, more: int, caplog: pytest.LogCaptureFixture) -> None:
    inks = np.zeros((6, 8, 4 + more), np.uint8 if bits == 8 else np.uint16)
    top = np.iinfo(inks.dtype).max
    inks[:, 4:, 0] = top  # cyan
    inks[:, :, 4:] = top // 2
    options = {"extrasamples": ["unassalpha"]} if more else {}
    picture = decode(tiff(inks, photometric="separated", **options), name="print.tif")
    assert (picture.bits, picture.metadata.icc) == (bits, None)
    assert picture.rgb[:, 3, 2].min() > 0.95
    assert picture.rgb[0, 3, 6] < 0.4 < 0.7 < picture.rgb[2, 3, 6]
    assert (picture.alpha is not None) == bool(more)
    if picture.alpha is not None:
        assert (picture.alpha - 0.5).abs().max() < 0.01
    assert caplog.messages == ["print.tif: its printing inks (CMYK) were brought to sRGB."]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_premultiplied_alpha_is_made_straight(dtype: type[np.generic]) -> None:
    top = int(np.iinfo(dtype).max)
    rgba = np.random.default_rng(1).integers(0, top + 1, (9, 13, 4)).astype(dtype)
    rgba[..., 3] = np.maximum(rgba[..., 3], top // 4)
    share = rgba[..., 3:].astype(float) / top
    stored = rgba.copy()
    stored[..., :3] = np.rint(rgba[..., :3] * share)
    picture = decode(tiff(stored, photometric="rgb", extrasamples=["assocalpha"]))
    found = picture.rgb.double().permute(1, 2, 0).numpy() * top
    assert np.abs(found - rgba[..., :3]).max() <= 4  # a quarter of the steps are left


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_of_several_frames_the_first_is_read(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    data = pillow(kind, frames[0], save_all=True, append_images=frames[1:])
    picture = decode(data, name="film")
    assert picture.rgb.shape == (3, 6, 8)
    assert picture.rgb[0].min() > 0.9
    assert picture.rgb[2].max() < 0.1
    assert caplog.messages == ["film: holds several frames or pages; only the first was read."]


def test_mislabelled_files_are_read_by_content(tmp_path: Path) -> None:
    for kind in ("PNG", "BMP", "TIFF"):
        (tmp_path / "x.jpg").write_bytes(pillow(kind))
        found = read(tmp_path / "x.jpg").rgb.permute(1, 2, 0).numpy() * 255
        assert np.array_equal(np.rint(found), RGB)


# Damage

WHOLE: list[Callable[[], bytes]] = [
    lambda: pillow("PNG"),
    lambda: pillow("JPEG", exif=pillow_exif()),
    lambda: pillow("WEBP", lossless=True),
    lambda: pillow("TIFF", compression="tiff_lzw"),
    lambda: pillow("BMP"),
    lambda: pillow("AVIF"),
    lambda: png_deep(),
]


def pillow_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif.get_ifd(0x8769)[0xA002] = 13
    return exif


def png_deep() -> bytes:
    file = io.BytesIO()
    png.Writer(13, 9, bitdepth=16, greyscale=False).write(
        file, (RGB.astype(np.uint16) * 257).reshape(9, -1).tolist()
    )
    return file.getvalue()


@given(
    number=st.integers(0, len(WHOLE) - 1),
    place=st.floats(0, 1, exclude_max=True),
    junk=st.binary(max_size=4),
    cut=st.booleans(),
)
@settings(max_examples=250, deadline=None)
def test_damaged_files_are_read_or_refused(
    number: int, place: float, junk: bytes, cut: bool
) -> None:
    """Nothing but a `PictureError` comes out of them; a file cut short is never half a picture."""
    data = WHOLE[number]()
    at = int(place * len(data))
    damaged = data[:at] if cut else data[:at] + junk + data[at + len(junk) :]
    try:
        picture = decode(damaged, max_pixels=10_000)
    except PictureError:
        refused(damaged, max_pixels=10_000)
        return
    encode(picture, "png")
    if cut:
        # Only what comes after the pixels may be missing.
        assert torch.equal(picture.rgb, decode(data).rgb)

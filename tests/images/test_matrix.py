"""What goes in comes out: formats x modes x depths x alpha x profile x orientation.

Every input is written by another library (pypng, tifffile, Pillow), taken through `read`,
`enlarged` and `write`, and the result compared pixel by pixel, metadata too, with what another
library reads in it. Pillow opens 16-bit RGB as 8 bit, so pypng and tifffile read those formats.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import png
import pytest
import tifffile
import torch
from PIL import Image
from tests.images.matrix_inputs import DPI, INPUTS, NOTE, Array, Meta, profile

from pcsr_lightning.images import read, write

OUTPUTS = {
    ".png": {"bits": 16, "alpha": True, "grey": True, "off": 0},
    ".tif": {"bits": 16, "alpha": True, "grey": True, "off": 0},
    ".jpg": {"bits": 8, "alpha": False, "grey": True, "off": 15},
    ".webp": {"bits": 8, "alpha": True, "grey": False, "off": 26},
    ".bmp": {"bits": 8, "alpha": False, "grey": True, "off": 0},
    ".avif": {"bits": 8, "alpha": True, "grey": False, "off": 10},
}


def turned(array: Array, orientation: int | None) -> Array:
    """EXIF's words: 6 is "row 0 is the right-hand side, column 0 the top"."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation or 1, ())
    return np.flip(array, flips)


def holdable(array: Array, holds: dict[str, Any]) -> Array:
    """What a format is expected to keep of the pixels, in RGB or grey as it holds them."""
    top = np.iinfo(array.dtype).max
    values = array / top
    bands = array.shape[2]
    if bands in (2, 4) and not holds["alpha"]:
        values = values[..., :-1] * values[..., -1:] + 1 - values[..., -1:]
    if bands <= 2 and not holds["grey"]:
        values = np.concatenate([values[..., :1].repeat(3, -1), values[..., 1:]], -1)
    top = min(top, 2 ** holds["bits"] - 1)
    return np.rint(values * top).astype(int)


def independent(path: Path) -> Array:
    """The file's pixels as another library reads them."""
    if path.suffix == ".png":
        width, height, rows, info = png.Reader(filename=str(path)).asDirect()
        return np.array([list(row) for row in rows]).reshape(height, width, info["planes"])
    if path.suffix == ".tif":
        array = tifffile.imread(path)
        return array.reshape(*array.shape[:2], -1)
    with Image.open(path) as image:
        return np.asarray(image).reshape(image.height, image.width, -1)


CASES = [
    pytest.param(*i, suffix, 1 + (number + 3 * place) % 8, id=f"{i[0]}-to{suffix}")
    for number, i in enumerate(INPUTS)
    for place, suffix in enumerate(OUTPUTS)
]


@pytest.mark.parametrize(("name", "make", "expected", "suffix", "orientation"), CASES)
def test_pixels_and_metadata_survive(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    make: Callable[[Meta], bytes],
    expected: Array,
    suffix: str,
    orientation: int,
) -> None:
    kind = name.split("-")[0]
    # BMP knows none of it, and AVIF turns pictures in another way than by EXIF.
    bare = kind == "bmp"
    grey = expected.shape[2] <= 2
    holds = OUTPUTS[suffix]
    icc = None if bare or (grey and not holds["grey"]) else profile(grey)
    dpi = DPI if kind not in ("webp", "avif") else None
    meta = Meta(None if bare else orientation, icc, not bare, dpi)
    (tmp_path / "in.any").write_bytes(make(meta))

    picture = read(tmp_path / "in.any")
    target = tmp_path / f"out{suffix}"
    with caplog.at_level(logging.WARNING):
        write(doubled(picture), target)

    upright = expected if bare else turned(expected, orientation)
    wanted = holdable(upright, holds).repeat(2, 0).repeat(2, 1)
    found = independent(target).astype(int)
    assert found.shape == wanted.shape
    off = np.abs(found - wanted)
    if found.shape[2] == 4 and suffix in (".webp", ".avif"):
        off = off[wanted[..., 3] > 0]  # colours that nobody sees
    has_alpha = expected.shape[2] in (2, 4)
    # AVIF decoders round YCbCr to RGB to either side; so can what is laid on white.
    slack = int(kind == "avif" or (has_alpha and not holds["alpha"]))
    assert off.max() <= holds["off"] + slack
    assert off.mean() <= holds["off"] / 6 + slack
    deep = expected.dtype == np.uint16
    assert ("16 bit was rounded" in caplog.text) == (deep and holds["bits"] == 8)
    assert ("laid on white" in caplog.text) == (has_alpha and not holds["alpha"])
    check_metadata(target, meta, kind)


def doubled(picture: Any) -> Any:
    def twice(x: torch.Tensor | None) -> torch.Tensor | None:
        return None if x is None else x.repeat_interleave(2, -1).repeat_interleave(2, -2)

    return picture.upscaled(twice(picture.rgb), twice(picture.alpha))


def check_metadata(path: Path, meta: Meta, kind: str) -> None:
    """As Pillow and tifffile read it."""
    if path.suffix == ".tif":
        check_tiff_metadata(path, meta, kind)
        return
    with Image.open(path) as image:
        image.load()
        info, exif, size = image.info, image.getexif(), image.size
    if path.suffix == ".bmp":
        # Pillow 13 says nothing of a resolution that is not stated, 12 says 0.
        found = info.get("dpi", (0, 0))
        assert found == pytest.approx((2 * DPI, 2 * DPI) if meta.dpi else (0, 0), abs=0.05)
        return
    assert info.get("icc_profile") == meta.icc
    assert exif.get(0x0112, 1) == 1
    if meta.exif:
        assert exif[0x010F].rstrip("\0") == "A maker"
    if meta.exif and kind != "tiff":
        inner = exif.get_ifd(0x8769)
        assert (inner[0xA002], inner[0xA003]) == size
        assert inner[0x927C] == NOTE
        assert exif.get_ifd(0x8825)[2] == (52.0, 30.0, 1.5)
    if meta.dpi and path.suffix in (".png", ".jpg"):
        assert info["dpi"] == pytest.approx((2 * DPI, 2 * DPI), abs=0.02)
    elif meta.dpi:
        found = (float(exif[0x011A]), float(exif[0x011B]), exif[0x0128])
        assert found == pytest.approx((2 * DPI, 2 * DPI, 2), abs=0.01)
    elif path.suffix == ".png":
        assert "dpi" not in info
    elif path.suffix == ".jpg":
        assert info.get("jfif_unit", 0) == 0


def check_tiff_metadata(path: Path, meta: Meta, kind: str) -> None:
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        tags = {tag.name: tag.value for tag in page.tags}
    assert tags.get("InterColorProfile") == meta.icc
    assert tags.get("Orientation", 1) == 1
    if meta.exif:
        assert tags["Make"] == "A maker"
    if meta.exif and kind != "tiff":
        inner = tags["ExifTag"]
        size = (tags["ImageWidth"], tags["ImageLength"])
        assert (inner["PixelXDimension"], inner["PixelYDimension"]) == size
        assert inner["MakerNote"] == NOTE
        assert tags["GPSTag"]["GPSLatitude"] == (52, 1, 30, 1, 3, 2)
    x, y, unit = (tags[name] for name in ("XResolution", "YResolution", "ResolutionUnit"))
    if meta.dpi:
        assert (x[0] / x[1], y[0] / y[1], unit) == pytest.approx((2 * DPI, 2 * DPI, 2))
    else:
        assert unit == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tiff", "jpeg", "webp", "avif"])
def test_every_orientation_is_applied_once(tmp_path: Path, kind: str, orientation: int) -> None:
    make, expected = next((m, e) for name, m, e in INPUTS if name == f"{kind}-rgb8")
    (tmp_path / "in").write_bytes(make(Meta(orientation)))
    for name in ("once.png", "twice.png"):
        write(read(tmp_path / ("in" if name == "once.png" else "once.png")), tmp_path / name)
        off = independent(tmp_path / name).astype(int) - turned(expected, orientation)
        assert np.abs(off).max() <= int(kind == "avif")

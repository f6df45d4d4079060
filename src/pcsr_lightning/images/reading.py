"""Pictures decoded: 16 bit exact, upright, CMYK brought to sRGB.

libvips does the work (Pillow silently opens 16-bit RGB as 8 bit), through a loader named by the
file's first bytes: its own choice would go on to SVG, CSV, raw and whatever else it was built with.
It reads from an open file, not from a name: a name in brackets would be taken for options, and a
file that has changed would be answered from its cache.
Arrays are (h, w, bands) with 1 to 4 bands: grey, grey and alpha, RGB, RGBA.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import pyvips
from numpy.typing import NDArray

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import exif as exif_blocks
from pcsr_lightning.images.bmp import read_bmp
from pcsr_lightning.images.formats import (
    AVIF,
    BMP,
    HEAD_BYTES,
    JPEG,
    NAMES,
    PNG,
    TIFF,
    WEBP,
    Format,
    recognise,
)
from pcsr_lightning.images.headers import Header, read_header
from pcsr_lightning.images.notes import Notes

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
MAX_PIXELS = 2**28
"""The most pixels a file may have unless told otherwise: 16,384 x 16,384 is more than cameras and
all but the largest scans give, and as floating-point RGB takes 3 GiB."""

_log = logging.getLogger(__name__)
# It reports every thread pool, and every oddity of a file that can be read all the same.
logging.getLogger("pyvips").setLevel(logging.ERROR)
_LOADERS = {
    PNG: "pngload_source",
    JPEG: "jpegload_source",
    WEBP: "webpload_source",
    TIFF: "tiffload_source",
    AVIF: "heifload_source",
}
_SIDEWAYS = {5, 6, 7, 8}
_MOST_DETAIL = 200


@dataclass(frozen=True)
class Decoded:
    """A file's content as `Picture` has it, the pixels still whole numbers over their range."""

    pixels: Pixels
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    resolution: tuple[float, float] | None = None
    notes: Notes = field(default_factory=Notes)


def decode_file(
    file: BinaryIO, source: Callable[[], pyvips.Source], name: str, max_pixels: int | None
) -> Decoded:
    """Decodes an open picture file.

    Args:
        file: seekable, at its beginning, unbuffered.
        source: makes libvips' view of the same bytes.
        name: of the file, for messages.
        max_pixels: the most pixels it may have; None for no limit.

    Raises:
        PictureError: not a picture, damaged, cut off, or too large; names the file.
    """

    def check(h: int, w: int) -> None:
        if max_pixels is not None and h * w > max_pixels:
            raise PictureError(
                f"{name}: {w:,} x {h:,} pixels, more than the {max_pixels:,} that are read at "
                "most. Raise max_pixels if this file is to be trusted, or cut it up."
            )

    forget_operations()
    try:
        head = file.read(HEAD_BYTES)
        if not head:
            raise PictureError(f"{name}: the file is empty (0 bytes).")
        format_ = recognise(head)
        header = read_header(file, format_)
        if header.problem is not None:
            raise ValueError(header.problem)
        if header.size is not None:
            check(*header.size)
        file.seek(0)
        if format_ is BMP:
            pixels, resolution = read_bmp(file, check)
            return Decoded(pixels, resolution=resolution)
        image = getattr(pyvips.Image, _loader(format_))(
            source(), access="sequential", fail_on="error"
        )
        check(image.height, image.width)
        return _decoded(image, header, name)
    except (pyvips.Error, OSError, ValueError, MemoryError) as error:
        raise PictureError(
            f"{name}: cannot read this picture ({one_line(error)}). The file is damaged, cut off, "
            f"or not one of {NAMES}."
        ) from error


def forget_operations() -> None:
    """Empties libvips' cache for good: it would keep the pixels of the last hundred pictures."""
    pyvips.cache_set_max(0)


def one_line(error: Exception) -> str:
    """What went wrong, without the log of everything that libvips tried."""
    text = str(error.detail if isinstance(error, pyvips.Error) else error)
    lines = dict.fromkeys(line.strip() for line in text.splitlines() if line.strip())
    kept = [line for line in lines if "source: bad seek" not in line]
    return "; ".join(kept)[:_MOST_DETAIL] or "no detail is known"


def _loader(format_: Format) -> str:
    loader = _LOADERS[format_]
    if pyvips.type_find("VipsOperation", loader) == 0:
        raise ValueError(f"this build of libvips cannot read {format_.name}")
    return loader


def _decoded(image: pyvips.Image, header: Header, name: str) -> Decoded:
    if image.format not in ("uchar", "ushort"):
        raise ValueError(f"channels of type {image.format}; 8 or 16 bit whole numbers are needed")
    if header.animated or _whole(image, "n-pages", 1) > 1:
        _log.warning("%s: holds several frames or pages; only the first was read.", name)
    for what in header.left_out:
        _log.warning("%s: read without %s.", name, what)
    icc, xmp = _blob(image, "icc-profile-data"), _blob(image, "xmp-data") or header.xmp
    if icc is None and header.profile:
        icc = b""  # known not to fit
    exif = header.exif
    if exif is None and (block := _blob(image, "exif-data")) is not None:
        exif = exif_blocks.bare(block)
    resolution = exif_blocks.finer(header.resolution, exif_blocks.resolution_of(exif))
    orientation = _whole(image, "orientation", header.orientation)
    depth = _whole(image, "bits-per-sample", 16)
    if orientation != 1:
        # Turning needs random access.
        image = image.copy_memory()
        image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        image = image.autorot()
        if orientation in _SIDEWAYS and resolution is not None:
            resolution = resolution[::-1]
    if image.interpretation == "cmyk":
        image, icc = _inks_to_srgb(image), None
        _log.warning("%s: its printing inks (CMYK) were brought to sRGB.", name)
    elif image.interpretation not in ("srgb", "rgb", "b-w", "rgb16", "grey16", "multiband"):
        raise ValueError(f"colours of the kind {image.interpretation}; RGB or grey is needed")
    if image.bands > 4:
        raise ValueError(f"{image.bands} channels; at most 4 are understood")
    pixels: Pixels = image.numpy().reshape(image.height, image.width, image.bands)
    if image.format == "ushort" and image.get_typeof("heif-compression") and depth < 16:
        pixels = _full_range(pixels, depth)
    icc = _fitting(icc, image.bands, name)
    return Decoded(pixels, icc, exif, xmp, resolution, header.notes)


def _inks_to_srgb(image: pyvips.Image) -> pyvips.Image:
    """By the embedded profile, or a common one. Alpha is kept out: libvips takes it for 8 bit."""
    inks = image.extract_band(0, n=4) if image.bands > 4 else image
    depth = 16 if image.format == "ushort" else 8
    rgb = inks.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
    return rgb.bandjoin(image.extract_band(4, n=image.bands - 4)) if image.bands > 4 else rgb


def _full_range(pixels: Pixels, depth: int) -> Pixels:
    """libvips puts 10 and 12 bits on top of 16, so that white is a little below 65,535."""
    top = 2**depth - 1
    full_N = ((np.arange(top + 1) * 65535 + top // 2) // top).astype(np.uint16)
    full: Pixels = full_N[pixels >> (16 - depth)]
    return full


def _fitting(icc: bytes | None, bands: int, name: str) -> bytes | None:
    """The profile, if it is one for this number of channels."""
    if icc is None:
        return None
    space = b"GRAY" if bands <= 2 else b"RGB "
    if len(icc) >= 128 and icc[16:20] == space and icc[36:40] == b"acsp":
        return icc
    kind = "grey" if bands <= 2 else "RGB"
    _log.warning("%s: its colour profile is not one for %s; read without it.", name, kind)
    return None


def _blob(image: pyvips.Image, name: str) -> bytes | None:
    return bytes(image.get(name)) if image.get_typeof(name) else None


def _whole(image: pyvips.Image, name: str, default: int) -> int:
    return int(image.get(name)) if image.get_typeof(name) else default

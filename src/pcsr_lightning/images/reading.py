"""Images decoded: 16 bit exact, upright, CMYK brought to sRGB.

libvips does the work (Pillow silently opens 16-bit RGB as 8 bit), through a loader named by the
file's first bytes: its own choice would go on to SVG, CSV, raw and whatever else it was built with.
It reads from an open file, not from a name: a name in brackets would be taken for options, and a
file that has changed would be answered from its cache.
Arrays are (h, w, bands) with 1 to 4 bands: grey, grey and alpha, RGB, RGBA.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO

import numpy as np
import pyvips
from numpy.typing import NDArray

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images.bmp import read_bmp
from pcsr_lightning.images.formats import (
    AVIF,
    BMP,
    GIF,
    HEAD_BYTES,
    HEIC,
    JPEG,
    NAMES,
    PNG,
    TIFF,
    WEBP,
    Format,
    KindNotReadError,
    recognise,
)
from pcsr_lightning.images.heic import read_heic
from pcsr_lightning.images.metadata import Metadata
from pcsr_lightning.images.metadata_reader import Inspection, inspect_file, read_metadata

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
MAX_PIXELS = 2**28
"""The most pixels a file may have by default: 16,384 x 16,384 is more than cameras and
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
    GIF: "gifload_source",
}
_MOST_SIDE = 10_000_000
_MOST_DETAIL = 200


def decode_file(
    file: BinaryIO, source: Callable[[], pyvips.Source], name: str, max_pixels: int | None
) -> tuple[Pixels, Metadata]:
    """Decodes an open picture file: its pixels, still whole numbers over their range, and metadata.

    Args:
        file: seekable, at its beginning, unbuffered.
        source: makes libvips' view of the same bytes.
        name: of the file, for messages.
        max_pixels: the most pixels it may have; None for no limit.

    Raises:
        PictureError: not a picture, damaged, cut off, or too large; names the file.
    """

    def check(h: int, w: int) -> None:
        if not 0 < min(h, w) <= max(h, w) <= _MOST_SIDE:
            raise ValueError(f"its header claims {w:,} x {h:,} pixels")
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
        found = inspect_file(file, format_)
        if found.problem is not None:
            raise KindNotReadError(found.problem)
        if found.claims is not None:
            check(*found.claims)
        file.seek(0)
        if format_ is BMP:
            pixels, resolution = read_bmp(file, check)
            return pixels, Metadata(resolution=resolution)
        if format_ is HEIC:
            image = read_heic(file, check)
        else:
            load = getattr(pyvips.Image, _loader(format_))
            image = load(source(), access="sequential", fail_on="error", **found.page)
        check(image.height, image.width)
        return _decoded(image, found, name)
    except ImportError as error:
        raise PictureError(f"{name}: {error}") from error
    except KindNotReadError as error:
        raise PictureError(
            f"{name}: cannot read this picture ({error}). These are read: {NAMES}."
        ) from error
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


def _decoded(image: pyvips.Image, found: Inspection, name: str) -> tuple[Pixels, Metadata]:
    if image.format not in ("uchar", "ushort"):
        raise ValueError(f"channels of type {image.format}; 8 or 16 bit whole numbers are needed")
    if found.animated or (not found.page and _whole(image, "n-pages", 1) > 1):
        _log.warning("%s: holds several frames or pages; only the first was read.", name)
    metadata, orientation = read_metadata(image, found)
    if image.format == "ushort" and image.get_typeof("heif-compression"):
        image = _full_range(image, _whole(image, "bits-per-sample", 16))
    if found.premultiplied and image.bands == 4:
        top = 255 if image.format == "uchar" else 65535
        image = image.unpremultiply(max_alpha=top).rint().cast(image.format)
    if orientation != 1:
        # Turning needs random access.
        image = image.copy_memory()
        image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        image = image.autorot()
    if image.interpretation == "cmyk":
        image, metadata = _inks_to_srgb(image), replace(metadata, icc=None)
        _log.warning("%s: its printing inks (CMYK) were brought to sRGB.", name)
    elif image.interpretation not in ("srgb", "rgb", "b-w", "rgb16", "grey16", "multiband"):
        raise ValueError(f"colours of the kind {image.interpretation}; RGB or grey is needed")
    if image.bands > 4:
        raise ValueError(f"{image.bands} channels; at most 4 are understood")
    pixels: Pixels = image.numpy().reshape(image.height, image.width, image.bands)
    if found.alpha_is_unsure and pixels.shape[2] in (2, 4) and not pixels[..., -1].any():
        pixels = pixels[..., :-1]  # a channel that was never filled would hide the whole picture
    return pixels, metadata


def _inks_to_srgb(image: pyvips.Image) -> pyvips.Image:
    """By the embedded profile, or a common one. Alpha is kept out: libvips takes it for 8 bit."""
    inks = image.extract_band(0, n=4) if image.bands > 4 else image
    depth = 16 if image.format == "ushort" else 8
    rgb = inks.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
    return rgb.bandjoin(image.extract_band(4, n=image.bands - 4)) if image.bands > 4 else rgb


def _full_range(image: pyvips.Image, depth: int) -> pyvips.Image:
    """libvips puts 10 and 12 bits on top of 16, so that white is a little below 65,535."""
    if depth == 16:
        return image
    top = 2**depth - 1
    full_N = ((np.arange(top + 1) * 65535 + top // 2) // top).astype(np.uint16)
    return (image >> (16 - depth)).maplut(pyvips.Image.new_from_array(full_N[None]))


def _whole(image: pyvips.Image, name: str, default: int) -> int:
    return int(image.get(name)) if image.get_typeof(name) else default

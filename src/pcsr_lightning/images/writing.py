"""Pictures encoded, with what a format cannot hold said. Arrays are (h, w, bands)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import pyvips
import torch
from torch import Tensor

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images.bmp import write_bmp
from pcsr_lightning.images.containers import ExifPlace, forget_resolution
from pcsr_lightning.images.facts import (
    exif_for,
    notes_for,
    put_rest,
    with_facts,
    with_writable_resolution,
)
from pcsr_lightning.images.formats import AVIF, BMP, JPEG, PNG, TIFF, WEBP, Format, check_size
from pcsr_lightning.images.picture import Picture
from pcsr_lightning.images.reading import Pixels, forget_operations, one_line

_log = logging.getLogger(__name__)
_SAVERS = {
    PNG: "pngsave_target",
    JPEG: "jpegsave_target",
    WEBP: "webpsave_target",
    TIFF: "tiffsave_target",
    AVIF: "heifsave_target",
}
_ROWS = 128
_KEEP, _KEEP_EXIF = 2 | 8, 1  # flags of libvips: XMP and profile; EXIF
_CLASSIC_TIFF = 2**32 - 2**26  # its offsets have 32 bits; some room for what is not pixels


def check_quality(format_: Format, quality: int | None, name: str) -> None:
    """Refuses a quality beyond 1..100.

    Raises:
        PictureError: it is.
    """
    if quality is not None and not 1 <= quality <= 100:
        raise PictureError(f"{name}: the quality of {format_.name} is 1 to 100, not {quality}.")


def encode_file(
    picture: Picture, file: BinaryIO, format_: Format, quality: int | None, name: str
) -> None:
    """Writes a picture into an open file.

    Args:
        picture: values are clamped to [0, 1] and rounded.
        file: empty, seekable, open for reading and writing, with a descriptor.
        format_: to write in.
        quality: 1 to 100; None for the format's usual one. Formats that lose nothing have none.
        name: of the file, for messages.

    Raises:
        PictureError: the picture is none, too large for the format, or cannot be written.
    """
    rgb = picture.rgb
    if rgb.ndim != 3 or len(rgb) != 3:
        raise PictureError(f"{name}: a picture is (3, h, w), got {tuple(rgb.shape)}.")
    if picture.alpha is not None and picture.alpha.shape != (1, *rgb.shape[1:]):
        raise PictureError(
            f"{name}: alpha is (1, h, w) of the picture's size, got {tuple(picture.alpha.shape)}."
        )
    size = (rgb.shape[1], rgb.shape[2])
    check_size(format_, size, name)
    check_quality(format_, quality, name)
    forget_operations()
    with errors_of(name):
        picture = with_writable_resolution(picture, name)
        bits = bits_of(picture, format_, name)
        pixels = _to_pixels(picture, format_, bits, name)
        if format_ is BMP:
            say_left_out(picture, format_, name)
            assert pixels.dtype == np.uint8
            write_bmp(pixels.astype(np.uint8, copy=False), file, picture.resolution)
            return
        names = ("grey16", "rgb16") if pixels.dtype == np.uint16 else ("b-w", "srgb")
        kind = names[pixels.shape[2] > 2]
        image = pyvips.Image.new_from_array(pixels, interpretation=kind)
        write_vips(picture, image, bits, file, format_, quality, name)


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """What libraries raise, as one line that names the file."""
    try:
        yield
    except (pyvips.Error, OSError, ValueError, MemoryError) as error:
        raise PictureError(f"{name}: cannot write this picture ({one_line(error)}).") from error


def write_vips(
    picture: Picture,
    image: pyvips.Image,
    bits: int,
    file: BinaryIO,
    format_: Format,
    quality: int | None,
    name: str,
) -> None:
    """Writes libvips' picture, which may still be in the making, with what belongs to it.

    Args:
        picture: profile, EXIF, XMP, resolution and notes; of its pixels only the size counts.
        image: the pixels, from top to bottom.
        bits: a channel.
        file: as for :func:`encode_file`.
        format_: any but BMP.
        quality: as for :func:`encode_file`.
        name: of the file, for messages.
    """
    if pyvips.type_find("VipsOperation", _SAVERS[format_]) == 0:
        raise ValueError(f"this build of libvips cannot write {format_.name}")
    exif, notes = exif_for(picture, format_, name), notes_for(picture, format_, name)
    place = (
        None if exif is None or format_ is TIFF else ExifPlace(exif, format_, picture.resolution)
    )
    large = image.width * image.height * image.bands * (2 if bits > 8 else 1) > _CLASSIC_TIFF
    image = with_facts(picture, image, format_, name)
    options = {**format_.options, "keep": _KEEP}
    if format_.quality is not None:
        options["Q"] = format_.quality if quality is None else quality
    if format_ is AVIF:
        options["bitdepth"] = bits
    if format_ is TIFF:
        options |= {"resunit": "inch", "bigtiff": large}
    if place is not None:
        image.set_type(pyvips.GValue.blob_type, "exif-data", place.block)
        options["keep"] = _KEEP | _KEEP_EXIF
    getattr(image, _SAVERS[format_])(pyvips.Target.new_to_descriptor(file.fileno()), **options)
    # A view of its own: `file` does not know where libvips has left the descriptor.
    with os.fdopen(os.dup(file.fileno()), "r+b") as written:
        if picture.resolution is None:
            forget_resolution(written, format_)
        if place is not None:
            place.fill(written)
        put_rest(written, format_, exif, notes, name)


def say_left_out(picture: Picture, format_: Format, name: str) -> None:
    """Warns of what a format without metadata cannot hold."""
    for what, value in (
        ("colour profile", picture.icc),
        ("EXIF", picture.exif),
        ("XMP", picture.xmp),
    ):
        if value is not None:
            _log.warning("%s: %s holds no %s; written without it.", name, format_.name, what)
    notes_for(picture, format_, name)


def bits_of(picture: Picture, format_: Format, name: str) -> int:
    """Bits a channel to write."""
    if picture.bits <= format_.max_bits:
        return picture.bits
    _log.warning(
        "%s: %s holds %d bits a channel; 16 bit was rounded to it.",
        name,
        format_.suffixes[0],
        format_.max_bits,
    )
    return format_.max_bits


def _to_pixels(picture: Picture, format_: Format, bits: int, name: str) -> Pixels:
    """What the format can hold, as whole numbers over their range."""
    rgb, alpha = picture.rgb, picture.alpha
    flat = alpha is not None and not format_.alpha
    if flat:
        if not _opaque(alpha):
            say_flat(format_, name)
        else:
            flat, alpha = False, None
    _, h, w = rgb.shape
    bands = (1 if picture.grey else 3) + (alpha is not None and not flat)
    pixels = np.empty((h, w, bands), np.uint16 if bits > 8 else np.uint8)
    # A few rows at a time: a large picture in floating point takes more than all else.
    for top in range(0, h, _ROWS):
        rows = slice(top, top + _ROWS)
        share = None if alpha is None else alpha[:, rows]
        pixels[rows] = pixel_rows(rgb[:, rows], share, flat, picture.grey, bits, name)
    return pixels


def say_flat(format_: Format, name: str) -> None:
    """Warns of transparency that a format cannot hold."""
    _log.warning("%s: %s cannot hold transparency; laid on white.", name, format_.suffixes[0])


def pixel_rows(
    rgb_3nw: Tensor, alpha_1nw: Tensor | None, flat: bool, grey: bool, bits: int, name: str
) -> Pixels:
    """Rows as whole numbers over their range: ``(n, w, bands)``.

    Args:
        rgb_3nw: as in `Picture`.
        alpha_1nw: theirs, if any.
        flat: whether they are laid on white.
        grey: one channel for three.
        bits: a channel.
        name: of the file, for messages.
    """
    colour = _finite(rgb_3nw, name)
    if grey:
        # Channels that started equal can part by rounding on their way through a network.
        colour = colour.mean(0, keepdim=True)
    parts = [colour]
    if alpha_1nw is not None:
        share = _finite(alpha_1nw, name).clamp(0, 1)
        parts = [colour.clamp(0, 1) * share + (1 - share)] if flat else [colour, share]
    values = torch.cat(parts).clamp_(0, 1).mul_(2**bits - 1).round_()
    if 8 < bits < 16:
        values *= 2 ** (16 - bits)  # libvips takes the upper bits
    whole = values.permute(1, 2, 0).numpy()
    return whole.astype(np.uint16) if bits > 8 else whole.astype(np.uint8)


def _opaque(alpha: Tensor | None) -> bool:
    return alpha is None or bool((_floats(alpha) >= 1).all())


def _finite(values: Tensor, name: str) -> Tensor:
    """As `_floats`; what would come out as black is refused."""
    floats = _floats(values)
    if not bool(floats.isfinite().all()):
        raise PictureError(f"{name}: the picture holds NaN or infinite values; not written.")
    return floats


def _floats(values: Tensor) -> Tensor:
    """In [0, 1], on the CPU."""
    values = values.detach().cpu()
    if values.dtype in (torch.uint8, torch.uint16):
        return values.float() / torch.iinfo(values.dtype).max
    return values.float()

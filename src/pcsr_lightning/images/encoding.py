"""Encodes rows of an image, and warns of what the format cannot hold.

Arrays are (n, w, bands), n rows of a strip.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

import numpy as np
import pyvips
import torch
from torch import Tensor

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images.bmp import BmpRows
from pcsr_lightning.images.formats import AVIF, BMP, JPEG, PNG, TIFF, WEBP, Format
from pcsr_lightning.images.metadata import Metadata, complete_file, select_metadata, set_metadata
from pcsr_lightning.images.picture import Picture, floats
from pcsr_lightning.images.reading import Pixels, forget_operations, one_line
from pcsr_lightning.images.vips_rows import VipsRows

_log = logging.getLogger(__name__)
_SAVERS = {
    PNG: "pngsave_target",
    JPEG: "jpegsave_target",
    WEBP: "webpsave_target",
    TIFF: "tiffsave_target",
    AVIF: "heifsave_target",
}
_MOST_NAMES = 12  # of what is not carried over
_CLASSIC_TIFF = 2**32 - 2**26  # its offsets have 32 bits; some room for what is not pixels


def check_quality(format_: Format, quality: int | None, name: str) -> None:
    """Refuses a quality beyond 1..100.

    Raises:
        PictureError: it is.
    """
    if quality is not None and not 1 <= quality <= 100:
        raise PictureError(f"{name}: the quality of {format_.name} is 1 to 100, not {quality}.")


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """What libraries raise, as one line that names the file."""
    try:
        yield
    except (pyvips.Error, OSError, ValueError, MemoryError) as error:
        raise PictureError(f"{name}: cannot write this picture ({one_line(error)}).") from error


class Encoder:
    """Makes whole numbers of rows and encodes them; warns of what the format cannot hold.

    Args:
        picture: only its size, depth and metadata count.
        file: empty, seekable, open for reading and writing, with a descriptor.
        format_: to write in.
        quality: 1 to 100; None for the format's usual one. Formats that lose nothing have none.
        name: of the file, for messages.

    Raises:
        PictureError: the picture cannot be written.
    """

    def __init__(
        self, picture: Picture, file: BinaryIO, format_: Format, quality: int | None, name: str
    ) -> None:
        forget_operations()
        self._format, self._name, self._grey = format_, name, picture.grey
        self._has_alpha = picture.alpha is not None
        self._flat = self._has_alpha and not format_.alpha
        self._warned = False
        self._bits = bits = _writable_bits(picture, format_, name)
        h, w = int(picture.rgb.shape[1]), int(picture.rgb.shape[2])
        self._left = h
        bands = (1 if picture.grey else 3) + (self._has_alpha and not self._flat)
        metadata, lost = select_metadata(picture.metadata, format_)
        if lost:
            more = f" and {len(lost) - _MOST_NAMES} more" if len(lost) > _MOST_NAMES else ""
            names = ", ".join(lost[:_MOST_NAMES]) + more
            names = "".join(c if c.isprintable() else "?" for c in names)
            _log.warning("%s: not carried over: %s.", name, names)
        self._encoder: VipsRows | BmpRows
        if format_ is BMP:
            self._encoder = BmpRows(file, (h, w), bands, metadata.resolution)
        else:
            options = _saver_options(format_, quality, (h, w), bands, bits)

            def save(image: pyvips.Image) -> None:
                image, kept = _brought_to_srgb(image, metadata, format_, name)
                _save(image, kept, file, format_, options)

            self._encoder = VipsRows(save, (h, w), bits, bands)

    def put(self, rgb_3nw: Tensor, alpha_1nw: Tensor | None = None, /) -> None:
        """Takes the next rows.

        Raises:
            PictureError: they, or earlier ones, cannot be written.
        """
        if self._has_alpha != (alpha_1nw is not None):
            raise PictureError(f"{self._name}: alpha goes with all rows of a picture or with none.")
        if self._flat and not self._warned and alpha_1nw is not None and _seen_through(alpha_1nw):
            self._warned = True
            suffix = self._format.suffixes[0]
            _log.warning("%s: %s cannot hold transparency; laid on white.", self._name, suffix)
        with errors_of(self._name):
            pixels = _pixel_rows(rgb_3nw, alpha_1nw, self._flat, self._grey, self._bits, self._name)
            self._left -= len(pixels)
            self._encoder.put(pixels)

    def finish(self) -> None:
        """Waits until all is in the file.

        Raises:
            PictureError: it cannot be written.
        """
        try:
            with errors_of(self._name):
                if self._left:
                    raise ValueError(f"{self._left} rows are missing")
                self._encoder.finish()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Ends the encoder, wherever it is."""
        self._encoder.abandon()


def _saver_options(
    format_: Format, quality: int | None, size: tuple[int, int], bands: int, bits: int
) -> dict[str, object]:
    """Options of libvips' saver."""
    if pyvips.type_find("VipsOperation", _SAVERS[format_]) == 0:
        raise ValueError(f"this build of libvips cannot write {format_.name}")
    options = dict(format_.options)
    if format_.quality is not None:
        options["Q"] = format_.quality if quality is None else quality
    if format_ is AVIF:
        options["bitdepth"] = bits
    if format_ is TIFF:
        large = size[0] * size[1] * bands * (2 if bits > 8 else 1) > _CLASSIC_TIFF
        options |= {"resunit": "inch", "bigtiff": large}
    return options


def _save(
    image: pyvips.Image,
    metadata: Metadata,
    file: BinaryIO,
    format_: Format,
    options: dict[str, object],
) -> None:
    """Writes libvips' image, which may still be in the making, and its metadata."""
    image, keep = set_metadata(image, metadata, format_)
    target = pyvips.Target.new_to_descriptor(file.fileno())
    getattr(image, _SAVERS[format_])(target, keep=keep, **options)
    # A view of its own: `file` does not know where libvips has left the descriptor.
    with os.fdopen(os.dup(file.fileno()), "r+b") as written:
        complete_file(written, metadata, format_)


def _brought_to_srgb(
    image: pyvips.Image, metadata: Metadata, format_: Format, name: str
) -> tuple[pyvips.Image, Metadata]:
    """A grey image without its profile, where the format holds no grey; others as they are."""
    if metadata.icc is None or metadata.icc[16:20] != b"GRAY" or format_.grey:
        return image, metadata
    _log.warning("%s: %s holds no profile for grey; brought to sRGB.", name, format_.name)
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", metadata.icc)
    depth = 16 if image.format == "ushort" else 8
    image = image.icc_transform("srgb", embedded=True, depth=depth).copy()
    image.remove("icc-profile-data")
    return image, replace(metadata, icc=None)


def _writable_bits(picture: Picture, format_: Format, name: str) -> int:
    """Bits a channel to write."""
    if picture.bits <= format_.max_bits:
        return picture.bits
    suffix, bits = format_.suffixes[0], format_.max_bits
    _log.warning("%s: %s holds %d bits a channel; 16 bit was rounded to it.", name, suffix, bits)
    return bits


def _pixel_rows(
    rgb_3nw: Tensor, alpha_1nw: Tensor | None, flat: bool, grey: bool, bits: int, name: str
) -> Pixels:
    """Rows as whole numbers over their range, ``(n, w, bands)``; ``flat``: laid on white."""
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
    pixels = values.permute(1, 2, 0).numpy()
    return pixels.astype(np.uint16) if bits > 8 else pixels.astype(np.uint8)


def _finite(values: Tensor, name: str) -> Tensor:
    """Floating point in [0, 1], on the CPU; what would come out as black is refused."""
    found = floats(values.detach().cpu()).float()
    if not bool(found.isfinite().all()):
        raise PictureError(f"{name}: the picture holds NaN or infinite values; not written.")
    return found


def _seen_through(alpha_1nw: Tensor) -> bool:
    """Whether something is transparent. Bicubic weights of ones sum up to a little less than 1."""
    return bool((floats(alpha_1nw) < 1 - 0.5 / 65535).any())

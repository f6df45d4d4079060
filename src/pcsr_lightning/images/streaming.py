"""Pictures written row by row, so that no more than a few rows of them are in memory.

PNG, TIFF and JPEG leave libvips as they come; its encoders of WebP and AVIF gather the whole
picture, whose sides those formats limit to 16,384 pixels. BMP, which it lacks, is written by hand.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import torch
from torch import Tensor

from pcsr_lightning.atomic_io import atomic_writer, remove_stale_temporaries
from pcsr_lightning.errors import PictureError
from pcsr_lightning.images.bmp_rows import BmpRows
from pcsr_lightning.images.facts import with_writable_resolution
from pcsr_lightning.images.formats import BMP, Format, check_size, format_for, format_named
from pcsr_lightning.images.picture import Picture, floats
from pcsr_lightning.images.picture_files import check_target
from pcsr_lightning.images.reading import forget_operations
from pcsr_lightning.images.vips_rows import VipsRows
from pcsr_lightning.images.writing import (
    bits_of,
    check_quality,
    errors_of,
    pixel_rows,
    say_flat,
    say_left_out,
)

_PIECE = 2**16


class TakesRows(Protocol):
    """Takes a picture's next rows, (3, n, w), and their alpha, (1, n, w), where it has one."""

    def __call__(self, rgb_3nw: Tensor, alpha_1nw: Tensor | None = None, /) -> None: ...


def outline(picture: Picture, size: tuple[int, int]) -> Picture:
    """The picture enlarged to ``(H, W)`` with pixels that take no memory and mean nothing."""
    nothing = torch.zeros(1, 1, 1)
    alpha = None if picture.alpha is None else nothing.expand(1, *size)
    return picture.enlarged(nothing.expand(3, *size), alpha)


@contextmanager
def written_by_rows(
    facts: Picture, path: str | Path, quality: int | None = None
) -> Iterator[TakesRows]:
    """Writes a picture as `write` does, whole or not at all; gives what takes its next rows.

    Rows are as in `Picture`. The file has its name once the block is left with all rows given, and
    not if it is left by an exception, which passes through.

    Args:
        facts: all but the pixels, see :func:`outline`.
        path: the file.
        quality: as for `write`.

    Raises:
        PictureError: as `write`; also from the rows' taker.
    """
    path = Path(path)
    format_, size = format_for(path), (facts.rgb.shape[-2], facts.rgb.shape[-1])
    inside: list[BaseException] = []
    try:
        check_target(path, format_, size, quality)
        remove_stale_temporaries(path)
        with (
            atomic_writer(path) as file,
            _encoding(facts, file, format_, quality, str(path), inside) as put,
        ):
            yield put
    except (OSError, ValueError) as error:
        if error in inside:
            raise
        reason = getattr(error, "strerror", None) or error
        raise PictureError(f"{path}: cannot write this picture ({reason}).") from error
    finally:
        inside.clear()  # or the error and its trace hold each other, and the file open


@contextmanager
def encoded_by_rows(
    facts: Picture,
    format: str,
    stream: BinaryIO,
    quality: int | None = None,
    name: str = "standard output",
) -> Iterator[TakesRows]:
    """As :func:`written_by_rows`, into a stream, which gets nothing before all is encoded.

    Until then it is in a temporary file, without a name, in the system's folder for such.

    Args:
        facts: see :func:`written_by_rows`.
        format: a format's name or suffix.
        stream: is written to, from top to bottom.
        quality: as for `write`.
        name: what messages call it.

    Raises:
        PictureError: as `encode`; also from the rows' taker.
        OSError: of ``stream``.
    """
    format_ = format_named(format, f"{name}: ")
    check_size(format_, (facts.rgb.shape[-2], facts.rgb.shape[-1]), name)
    check_quality(format_, quality, name)
    with tempfile.TemporaryFile() as file:
        with _encoding(facts, file, format_, quality, name, []) as put:
            yield put
        file.seek(0)
        shutil.copyfileobj(file, stream, _PIECE)
        stream.flush()


@contextmanager
def _encoding(
    facts: Picture,
    file: BinaryIO,
    format_: Format,
    quality: int | None,
    name: str,
    inside: list[BaseException],
) -> Iterator[TakesRows]:
    """The rows' taker; ``inside`` gets what the block raises, to be told from our own errors."""
    with errors_of(name):
        rows = _Rows(facts, file, format_, quality, name)
    try:
        yield rows.put
    except BaseException as error:
        inside.append(error)
        rows.abandon()
        raise
    rows.finish()


class _Rows:
    """Makes whole numbers of rows and counts them.

    Args:
        facts: the picture without its pixels.
        file: as for `encode_file`.
        format_: to write in.
        quality: as for `encode_file`.
        name: of the file, for messages.
    """

    def __init__(
        self, facts: Picture, file: BinaryIO, format_: Format, quality: int | None, name: str
    ) -> None:
        forget_operations()
        facts = with_writable_resolution(facts, name)
        self._format, self._name, self._grey = format_, name, facts.grey
        self._has_alpha = facts.alpha is not None
        self._flat = self._has_alpha and not format_.alpha
        self._told = False
        self._bits = bits_of(facts, format_, name)
        self._left = int(facts.rgb.shape[1])
        bands = (1 if facts.grey else 3) + (self._has_alpha and not self._flat)
        self._encoder: VipsRows | BmpRows
        if format_ is BMP:
            say_left_out(facts, format_, name)
            size = self._left, int(facts.rgb.shape[2])
            self._encoder = BmpRows(file, size, bands, facts.resolution)
        else:
            self._encoder = VipsRows(facts, file, format_, quality, self._bits, bands, name)

    def put(self, rgb_3nw: Tensor, alpha_1nw: Tensor | None = None, /) -> None:
        """Takes the next rows.

        Raises:
            PictureError: they, or earlier ones, cannot be written.
        """
        if self._has_alpha != (alpha_1nw is not None):
            raise PictureError(f"{self._name}: alpha goes with all rows of a picture or with none.")
        if self._flat and not self._told and alpha_1nw is not None and _seen_through(alpha_1nw):
            self._told = True
            say_flat(self._format, self._name)
        with errors_of(self._name):
            pixels = pixel_rows(rgb_3nw, alpha_1nw, self._flat, self._grey, self._bits, self._name)
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


def _seen_through(alpha_1nw: Tensor) -> bool:
    """Whether something is transparent. Bicubic weights of ones sum up to a little less than 1."""
    return bool((floats(alpha_1nw) < 1 - 0.5 / 65535).any())

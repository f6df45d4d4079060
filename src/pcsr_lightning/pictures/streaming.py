"""Pictures written row by row, so that no more than a few rows of them are in memory.

libvips encodes in a thread of its own, from a pipe. What goes through the pipe is a PNG file that
is not compressed: of what libvips reads from top to bottom, that is the cheapest to make.
Arrays are (n, w, bands), n rows of a strip.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyvips
import torch
from torch import Tensor

from pcsr_lightning.errors import PictureError
from pcsr_lightning.pictures.formats import JPEG, PNG, TIFF, Format, format_for, format_named
from pcsr_lightning.pictures.picture import Picture
from pcsr_lightning.pictures.picture_files import check_target
from pcsr_lightning.pictures.reading import Pixels, forget_operations
from pcsr_lightning.pictures.writing import bits_of, errors_of, pixel_rows, write_vips
from pcsr_lightning.whole_files import remove_halves, whole_file

_STREAMED = (PNG, TIFF, JPEG)  # the encoders of the others want the whole picture
_PIECE = 2**16
_PNG_KINDS = {1: 0, 3: 2}  # bands: its code for grey and RGB


def can_stream(suffix: str) -> bool:
    """Whether a format is encoded row by row."""
    return format_named(suffix) in _STREAMED


def outline(picture: Picture, size: tuple[int, int]) -> Picture:
    """The picture enlarged to ``(H, W)`` with pixels that take no memory and mean nothing."""
    return picture.enlarged(torch.zeros(1, 1, 1).expand(3, *size), None)


@contextmanager
def written_by_rows(
    facts: Picture, path: str | Path, quality: int | None = None
) -> Iterator[Callable[[Tensor], None]]:
    """Writes a picture as `write` does, whole or not at all; gives what takes its next rows.

    Rows are (3, n, w), as in `Picture`. The file has its name once the block is left with all rows
    given, and not if it is left by an exception, which passes through.

    Args:
        facts: all but the pixels, see :func:`outline`; without alpha.
        path: the file; its suffix names a format that :func:`can_stream` takes.
        quality: as for `write`.

    Raises:
        PictureError: as `write`; also from the rows' taker.
    """
    path = Path(path)
    format_, size = format_for(path), (facts.rgb.shape[-2], facts.rgb.shape[-1])
    check_target(path, format_, size, quality)
    inside: BaseException | None = None
    try:
        remove_halves(path)
        with whole_file(path) as file:
            encoder = _Encoder(facts, file, format_, quality, str(path))
            try:
                yield encoder.put
            except BaseException as error:
                inside = error
                encoder.abandon()
                raise
            encoder.finish()
    except (OSError, ValueError) as error:
        if error is inside:
            raise
        reason = getattr(error, "strerror", None) or error
        raise PictureError(f"{path}: cannot write this picture ({reason}).") from error


class _Encoder:
    """A thread that encodes what comes through a pipe.

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
        self._facts, self._file, self._format = facts, file, format_
        self._quality, self._name = quality, name
        self._bits = bits_of(facts, format_, name)
        self._error: BaseException | None = None
        self._left = int(facts.rgb.shape[1])
        self._zlib = zlib.compressobj(0)
        self._out, self._in = os.pipe()
        self._open = True
        self._thread = threading.Thread(target=self._encode, name="encoder", daemon=True)
        self._thread.start()
        try:
            self._begin()
        except BaseException:
            self.abandon()
            raise

    def put(self, rgb_3nw: Tensor) -> None:
        """Takes the next rows.

        Raises:
            PictureError: they, or earlier ones, cannot be written.
        """
        pixels = pixel_rows(rgb_3nw, None, False, self._facts.grey, self._bits, self._name)
        self._left -= len(pixels)
        self._chunk(b"IDAT", self._zlib.compress(_png_rows(pixels)))

    def finish(self) -> None:
        """Waits until all is in the file.

        Raises:
            PictureError: it cannot be written.
        """
        try:
            if self._left:
                raise ValueError(f"{self._left} rows are missing")
            self._chunk(b"IDAT", self._zlib.flush())
            self._chunk(b"IEND", b"")
        finally:
            self.abandon()
        self._check()

    def abandon(self) -> None:
        """Ends the pipe, and with it the encoder, which has then done or failed."""
        if self._open:
            self._open = False
            os.close(self._in)
        self._thread.join()

    def _begin(self) -> None:
        H, W = self._facts.rgb.shape[-2:]
        kind = _PNG_KINDS[1 if self._facts.grey else 3]
        self._send(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, self._bits, kind, 0, 0, 0))

    def _chunk(self, name: bytes, data: bytes) -> None:
        if data or name != b"IDAT":
            self._send(struct.pack(">I", len(data)) + name)
            self._send(data)
            self._send(struct.pack(">I", zlib.crc32(data, zlib.crc32(name))))

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            self._check()
            left = left[os.write(self._in, left) :]

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _encode(self) -> None:
        """The thread. Whatever happens, it reads to the end, so that nobody waits for it."""
        try:
            with errors_of(self._name):
                source = pyvips.Source.new_from_descriptor(self._out)
                image = pyvips.Image.pngload_source(source, access="sequential", fail_on="error")
                write_vips(
                    self._facts,
                    image,
                    self._bits,
                    self._file,
                    self._format,
                    self._quality,
                    self._name,
                )
        except BaseException as error:  # told to whoever gives the rows
            self._error = error
        finally:
            with suppress(OSError):
                while os.read(self._out, _PIECE):
                    pass
            os.close(self._out)


def _png_rows(pixels: Pixels) -> bytes:
    """Rows as PNG has them: high bytes first, before each row how it is filtered (0: not)."""
    n = len(pixels)
    wide = pixels.astype(">u2") if pixels.dtype == np.uint16 else pixels
    out = np.zeros((n, 1 + wide[0].nbytes), np.uint8)
    out[:, 1:] = np.ascontiguousarray(wide).view(np.uint8).reshape(n, -1)
    return out.tobytes()

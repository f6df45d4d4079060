"""Rows encoded by libvips in a thread of its own, which reads them from a pipe.

What goes through the pipe is a PNG file that is not compressed: of what libvips reads from top to
bottom, that is the cheapest to make. Arrays are (n, w, bands), n rows of a strip.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pyvips

from pcsr_lightning.images.reading import Pixels

_PIECE = 2**16
_PNG_KINDS = {1: 0, 2: 4, 3: 2, 4: 6}  # bands: its code for grey, grey and alpha, RGB, RGBA


class VipsRows:
    """A thread in which libvips encodes what comes through a pipe.

    Args:
        save: writes the image that it is given, in the thread.
        size: (h, w).
        bits: a channel, of the result; rows of more than 8 are uint16.
        bands: 1 to 4: grey, grey and alpha, RGB, RGBA.

    Raises:
        Exception: what ``save`` raises; :meth:`put` and :meth:`finish` raise it too.
    """

    def __init__(
        self,
        save: Callable[[pyvips.Image], None],
        size: tuple[int, int],
        bits: int,
        bands: int,
    ) -> None:
        self._save = save
        self._error: BaseException | None = None
        self._zlib = zlib.compressobj(0)
        self._out, self._in = os.pipe()
        self._open = True
        self._thread = threading.Thread(target=self._encode, name="encoder", daemon=True)
        self._thread.start()
        try:
            self._begin(size[1], size[0], bits, bands)
        except BaseException:
            self.abandon()
            raise

    def put(self, pixels: Pixels) -> None:
        """Takes the next rows, (n, w, bands)."""
        self._chunk(b"IDAT", self._zlib.compress(_png_rows(pixels)))

    def finish(self) -> None:
        """Waits until all is in the file."""
        try:
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

    def _begin(self, width: int, height: int, bits: int, bands: int) -> None:
        depth = 16 if bits > 8 else 8
        self._send(b"\x89PNG\r\n\x1a\n")
        header = struct.pack(">IIBBBBB", width, height, depth, _PNG_KINDS[bands], 0, 0, 0)
        self._chunk(b"IHDR", header)

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
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # its trace holds this frame

    def _encode(self) -> None:
        """The thread. Whatever happens, it reads to the end, so that nobody waits for it."""
        try:
            source = pyvips.Source.new_from_descriptor(self._out)
            self._save(pyvips.Image.pngload_source(source, access="sequential", fail_on="error"))
        except BaseException as error:  # raised in the thread that gives the rows
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

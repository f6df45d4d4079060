"""BMP written row by row. Arrays are (n, w, bands), uint8, n rows of a strip."""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

from pcsr_lightning.images.reading import Pixels

_HEADER = 40
_FILE_HEADER = 14


class BmpRows:
    """A file that is filled from its end on, since BMP has the lowest row first.

    Args:
        file: empty, seekable.
        size: (h, w).
        bands: 1 or 3.
        resolution: pixels per mm, across and down.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        file: BinaryIO,
        size: tuple[int, int],
        bands: int,
        resolution: tuple[float, float] | None,
    ) -> None:
        self._file = file
        h, w = size
        self._stride = (w * bands + 3) // 4 * 4
        greys = b"".join(bytes((i, i, i, 0)) for i in range(256)) if bands == 1 else b""
        start, used = _FILE_HEADER + _HEADER + len(greys), len(greys) // 4
        across, down = (0, 0) if resolution is None else (int(r * 1000 + 0.5) for r in resolution)
        end = start + h * self._stride
        facts = (_HEADER, w, h, 1, 8 * bands, 0, end - start, across, down, used, used)
        file.write(struct.pack("<2sIII", b"BM", end, 0, start))
        file.write(struct.pack("<IIIHHIIIIII", *facts) + greys)
        self._end = end

    def put(self, pixels: Pixels) -> None:
        """Takes the next rows.

        Raises:
            OSError: they cannot be written.
        """
        n, w, bands = pixels.shape
        rows = np.zeros((n, self._stride), np.uint8)
        # From the lowest row up, and blue first.
        rows[:, : w * bands] = pixels[::-1, :, ::-1].reshape(n, -1)
        self._end -= n * self._stride
        self._file.seek(self._end)
        self._file.write(rows.tobytes())

    def finish(self) -> None:
        """All rows are there; the file's buffer is written by whoever closes it."""

    def abandon(self) -> None:
        """Nothing is under way."""

"""BMP files, which libvips' binary lacks: read through Pillow, written row by row.

Pillow writes no BMP row by row, so that a large one would be in memory as a whole.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile

from pcsr_lightning.images.pillow import pillow_errors

_INCH = 25.4
_HEADER = 40
_FILE_HEADER = 14


def read_bmp(
    file: BinaryIO, check: Callable[[int, int], None]
) -> tuple[NDArray[np.uint8], tuple[float, float] | None]:
    """The pixels (h, w, 1 or 3 or 4 bands) and the pixels per mm.

    Args:
        file: at its beginning.
        check: gets (h, w) before memory is taken for them; raises if they are too large.

    Raises:
        ValueError: damaged, cut off, or of an unknown kind.
    """
    # Not Image.open, which has a limit of its own.
    with pillow_errors(), BmpImageFile(file) as image:
        size = image.height, image.width
        wanted = {"1": "L", "L": "L", "RGBA": "RGBA"}.get(image.mode, "RGB")
        dots = image.info.get("dpi")
        check(*size)
        pixels = np.asarray(image.convert(wanted))
    if pixels.ndim == 3 and pixels.shape[2] == 4 and not pixels[..., 3].any():
        pixels = pixels[..., :3]  # many programs leave the fourth channel empty
    resolution = None
    if dots is not None and min(dots) > 0:
        resolution = dots[0] / _INCH, dots[1] / _INCH
    return (pixels[:, :, None] if pixels.ndim == 2 else pixels), resolution


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
        header = (_HEADER, w, h, 1, 8 * bands, 0, end - start, across, down, used, used)
        file.write(struct.pack("<2sIII", b"BM", end, 0, start))
        file.write(struct.pack("<IIIHHIIIIII", *header) + greys)
        self._end = end

    def put(self, pixels: NDArray[np.unsignedinteger[Any]]) -> None:
        """Takes the next rows, (n, w, bands) of uint8.

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

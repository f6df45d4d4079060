"""BMP, which the binary of libvips lacks, through Pillow. Arrays are (h, w, bands), uint8."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile

from pcsr_lightning.errors import PictureError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_INCH = 25.4


def read_bmp(
    file: BinaryIO, check: Callable[[int, int], None]
) -> tuple[NDArray[np.uint8], tuple[float, float] | None]:
    """The pixels (1, 3 or 4 bands) and the pixels per mm.

    Args:
        file: at its beginning.
        check: gets (h, w) before memory is taken for them; raises if they are too large.

    Raises:
        ValueError: damaged, cut off, or of an unknown kind.
    """
    try:
        # Not Image.open, which has a limit of its own.
        with BmpImageFile(file) as image:
            size = image.height, image.width
            wanted = {"1": "L", "L": "L", "RGBA": "RGBA"}.get(image.mode, "RGB")
            dots = image.info.get("dpi")
            check(*size)
            pixels = np.asarray(image.convert(wanted))
    except Exception as error:  # Pillow's decoders meet damaged files with errors of many kinds
        if isinstance(error, PictureError | ValueError | OSError | MemoryError):
            raise
        raise ValueError(f"{type(error).__name__}: {error}") from error
    resolution = None
    if dots is not None and min(dots) > 0:
        resolution = dots[0] / _INCH, dots[1] / _INCH
    return (pixels[:, :, None] if pixels.ndim == 2 else pixels), resolution


def write_bmp(
    pixels: NDArray[np.uint8], file: BinaryIO, resolution: tuple[float, float] | None
) -> None:
    """Writes 1 or 3 bands.

    Raises:
        OSError: the file cannot be written.
    """
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    dots = (0.0, 0.0) if resolution is None else (resolution[0] * _INCH, resolution[1] * _INCH)
    image.save(cast("BinaryIO", _Stream(file)), "BMP", dpi=dots)


class _Stream(io.RawIOBase):
    """A file without a descriptor: Pillow would write to that past all checks for a full disk."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        return self._file.write(data)

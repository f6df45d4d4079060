"""Image files read."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyvips
import torch
from torch import Tensor

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images.metadata import Metadata
from pcsr_lightning.images.picture import Picture
from pcsr_lightning.images.reading import MAX_PIXELS, Pixels, decode_file

_MEANINGS = {
    errno.ENOENT: "no such file",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.ENAMETOOLONG: "the name is too long",
}


def read(
    path: str | Path, max_pixels: int | None = MAX_PIXELS, as_integers: bool = False
) -> Picture:
    """Reads a picture file: orientation applied, 16 bit exact, CMYK brought to sRGB.

    The content decides, not the suffix. Of several frames or pages the first is read, with a
    warning.

    Args:
        path: a regular file.
        max_pixels: the most pixels it may have, checked before memory is taken for them; None for
            no limit.
        as_integers: gives the pixels as whole numbers, which take a quarter or half of the memory.

    Raises:
        PictureError: missing, not a picture, truncated, too large or otherwise unreadable; names
            the file.
    """
    return _picture(*_decode_path(Path(path), max_pixels), as_integers)


def decode(
    data: bytes,
    max_pixels: int | None = MAX_PIXELS,
    name: str = "standard input",
    as_integers: bool = False,
) -> Picture:
    """The picture in a file's bytes; as `read`.

    Args:
        data: the bytes.
        max_pixels: as for `read`.
        name: what messages call it.
        as_integers: as for `read`.

    Raises:
        PictureError: as for `read`.
    """
    source = partial(pyvips.Source.new_from_memory, data)
    return _picture(*decode_file(io.BytesIO(data), source, name, max_pixels), as_integers)


def read_rgb8(path: str | Path) -> Tensor:
    """Reads a picture file as plain 8-bit RGB, for training and evaluation: uint8 (3, h, w).

    Alpha is dropped, grey is repeated, 16 bit is rounded.

    Raises:
        PictureError: as for `read`.
    """
    pixels, _ = _decode_path(Path(path), MAX_PIXELS)
    if pixels.dtype == np.uint16:
        # uint16 / 257 rounded to nearest, without leaving integers
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    pixels = pixels[:, :, :1].repeat(3, 2) if pixels.shape[2] <= 2 else pixels[:, :, :3]
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _picture(pixels: Pixels, metadata: Metadata, as_integers: bool) -> Picture:
    bits = 16 if pixels.dtype == np.uint16 else 8
    h, w, bands = pixels.shape
    if as_integers:
        # Pillow's are not ours to write.
        tensor = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        tensor = tensor.permute(2, 0, 1)
    else:
        values = np.empty((bands, h, w), np.float32)
        np.divide(pixels.transpose(2, 0, 1), np.float32(2**bits - 1), out=values)
        tensor = torch.from_numpy(values)
    grey = bands <= 2
    grey_rgb = tensor[:1].expand(3, h, w) if as_integers else tensor[:1].repeat(3, 1, 1)
    alpha = tensor[-1:] if bands in (2, 4) else None
    return Picture(grey_rgb if grey else tensor[:3], alpha, bits, grey, metadata)


def _decode_path(path: Path, max_pixels: int | None) -> tuple[Pixels, Metadata]:
    with _opened(path) as file:
        return decode_file(
            file,
            lambda: pyvips.Source.new_from_descriptor(file.fileno()),
            str(path),
            max_pixels,
        )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """An unbuffered file, which a pipe or device that never answers cannot hold up."""
    try:
        _refuse_special(path, path.stat().st_mode)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        raise PictureError(f"{path}: {_MEANINGS.get(number or 0, str(error))}.") from error
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        # Once more: the name may stand for something else by now.
        _refuse_special(path, os.fstat(descriptor).st_mode)
        yield file


def _refuse_special(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise PictureError(f"{path}: is a folder, not a picture.")
    if not stat.S_ISREG(mode):
        raise PictureError(f"{path}: is a pipe, socket or device, not a picture file.")

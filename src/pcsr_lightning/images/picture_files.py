"""Picture files by name: listed, read, and written whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyvips
import torch
from torch import Tensor

from pcsr_lightning.atomic_io import atomic_writer, remove_stale_temporaries
from pcsr_lightning.errors import PictureError
from pcsr_lightning.images.formats import SUFFIXES, Format, check_size, format_for, format_named
from pcsr_lightning.images.picture import Picture
from pcsr_lightning.images.reading import MAX_PIXELS, Decoded, decode_file
from pcsr_lightning.images.writing import check_quality, encode_file

_MEANINGS = {
    errno.ENOENT: "no such file",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.ENAMETOOLONG: "the name is too long",
}


def list_pictures(folder: str | Path) -> list[Path]:
    """All picture files in a folder and its sub-folders, sorted by path; hidden files are left out.

    Raises:
        PictureError: no such folder, not a folder, or no picture in it.
    """
    folder = Path(folder)
    accepted = ", ".join(SUFFIXES)
    if not folder.exists():
        raise PictureError(f"{folder}: no such folder. Name a folder of pictures ({accepted}).")
    if not folder.is_dir():
        raise PictureError(f"{folder}: not a folder. Name the folder that holds the pictures.")
    found = [
        Path(where, name)
        for where, _, names in os.walk(folder, followlinks=True)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    ]
    if not found:
        raise PictureError(
            f"{folder}: no picture in this folder or its sub-folders. Accepted: {accepted}."
        )
    return sorted(found)


def read(path: str | Path, max_pixels: int | None = MAX_PIXELS, whole: bool = False) -> Picture:
    """Reads a picture file: orientation applied, 16 bit exact, CMYK brought to sRGB.

    The content decides, not the suffix. Of several frames or pages the first is read, with a
    warning.

    Args:
        path: a regular file.
        max_pixels: the most pixels it may have, checked before memory is taken for them; None for
            no limit.
        whole: gives the pixels as whole numbers, which take a quarter or half of the memory.

    Raises:
        PictureError: missing, not a picture, truncated, too large or otherwise unreadable; names
            the file.
    """
    return _picture(_decode_path(Path(path), max_pixels), whole)


def decode(
    data: bytes,
    max_pixels: int | None = MAX_PIXELS,
    name: str = "standard input",
    whole: bool = False,
) -> Picture:
    """The picture in a file's bytes; as `read`.

    Args:
        data: the bytes.
        max_pixels: as for `read`.
        name: what messages call it.
        whole: as for `read`.

    Raises:
        PictureError: as for `read`.
    """
    source = partial(pyvips.Source.new_from_memory, data)
    return _picture(decode_file(io.BytesIO(data), source, name, max_pixels), whole)


def read_rgb8(path: str | Path) -> Tensor:
    """Reads a picture file as plain 8-bit RGB, for training and evaluation: uint8 (3, h, w).

    Alpha is dropped, grey is repeated, 16 bit is rounded.

    Raises:
        PictureError: as for `read`.
    """
    pixels = _decode_path(Path(path), MAX_PIXELS).pixels
    if pixels.dtype == np.uint16:
        # uint16 / 257 rounded to nearest, without leaving integers
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    pixels = pixels[:, :, :1].repeat(3, 2) if pixels.shape[2] <= 2 else pixels[:, :, :3]
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def write(
    picture: Picture, path: str | Path, format: str | None = None, quality: int | None = None
) -> None:
    """Writes a picture, whole or not at all; what killed processes left of it is removed.

    Values are clamped to [0, 1] and rounded. What the format cannot hold is said in one warning
    each: JPEG and BMP lay transparency on white; only PNG and TIFF hold 16 bit (AVIF 10, the others
    8); BMP holds no profile, EXIF or XMP. EXIF and XMP are brought up to date (upright, new size
    and resolution, no thumbnail).

    Args:
        picture: what to write.
        path: the file; an old one is replaced in one step.
        format: a format's name or suffix; None for the one that the path's suffix names.
        quality: 1 to 100 for JPEG, WebP and AVIF; None for their usual one (95, 95, 90). The other
            formats lose nothing, whatever is given.

    Raises:
        PictureError: unknown format, missing folder, a picture too large for the format, or a write
            that fails; names the file, and leaves the old one.
    """
    path = Path(path)
    format_ = format_for(path, format)
    try:
        check_target(path, format_, (picture.rgb.shape[-2], picture.rgb.shape[-1]), quality)
        remove_stale_temporaries(path)
        with atomic_writer(path) as file:
            encode_file(picture, file, format_, quality, str(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PictureError(f"{path}: cannot write this picture ({reason}).") from error


def check_target(path: Path, format_: Format, size: tuple[int, int], quality: int | None) -> None:
    """Refuses a file that a picture cannot be written to.

    Raises:
        PictureError: too large for the format, a quality beyond its range, a missing folder, or
            not a regular file.
    """
    check_size(format_, size, str(path))
    check_quality(format_, quality, str(path))
    if path.is_dir():
        raise PictureError(f"{path}: is a folder. Name a file to write the picture to.")
    if path.exists() and not path.is_file():
        raise PictureError(f"{path}: is not a regular file. Name a file to write the picture to.")
    if not path.parent.is_dir():
        raise PictureError(f"{path}: the folder {path.parent} does not exist. Create it first.")


def encode(
    picture: Picture, format: str, quality: int | None = None, name: str = "standard output"
) -> bytes:
    """A picture file as bytes; as `write`.

    Args:
        picture: what to write.
        format: a format's name or suffix.
        quality: as for `write`.
        name: what messages call it.

    Raises:
        PictureError: as for `write`.
    """
    format_ = format_named(format, f"{name}: ")
    with tempfile.TemporaryFile() as file:
        encode_file(picture, file, format_, quality, name)
        file.seek(0)
        return file.read()


def _picture(decoded: Decoded, whole: bool) -> Picture:
    pixels = decoded.pixels
    bits = 16 if pixels.dtype == np.uint16 else 8
    h, w, bands = pixels.shape
    if whole:
        # Pillow's are not ours to write.
        tensor = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        tensor = tensor.permute(2, 0, 1)
    else:
        values = np.empty((bands, h, w), np.float32)
        np.divide(pixels.transpose(2, 0, 1), np.float32(2**bits - 1), out=values)
        tensor = torch.from_numpy(values)
    grey = bands <= 2
    grey_rgb = tensor[:1].expand(3, h, w) if whole else tensor[:1].repeat(3, 1, 1)
    return Picture(
        rgb=grey_rgb if grey else tensor[:3],
        alpha=tensor[-1:] if bands in (2, 4) else None,
        bits=bits,
        grey=grey,
        icc=decoded.icc,
        exif=decoded.exif,
        xmp=decoded.xmp,
        resolution=decoded.resolution,
        notes=decoded.notes,
    )


def _decode_path(path: Path, max_pixels: int | None) -> Decoded:
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

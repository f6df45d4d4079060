"""Writes images atomically: at once, or row by row as they are computed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

import torch
from torch import Tensor

from pcsr_lightning.atomic_io import atomic_writer, link_target, remove_stale_temporaries
from pcsr_lightning.errors import PictureError
from pcsr_lightning.images.encoding import Encoder, check_quality, errors_of
from pcsr_lightning.images.formats import Format, check_size, format_for, format_named
from pcsr_lightning.images.picture import Picture

_PIECE = 2**16
_ROWS = 128


def write(
    picture: Picture, path: str | Path, format: str | None = None, quality: int | None = None
) -> None:
    """Writes a picture atomically; what killed processes left of it is removed.

    Values are clamped to [0, 1] and rounded. It warns of transparency laid on white (JPEG, BMP) and
    of 16 bit rounded to 10 (AVIF) or 8 (all but PNG and TIFF), and names in one line what metadata
    the file does not hold. EXIF and XMP are updated: upright, new sizes and resolution, no
    thumbnail.

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
    _check_shapes(picture, str(path))
    with written_by_rows(picture, path, quality, format) as put:
        _put_all(picture, put)


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
    _check_shapes(picture, name)
    stream = BytesIO()
    with encoded_by_rows(picture, format, stream, quality, name) as put:
        _put_all(picture, put)
    return stream.getvalue()


class TakesRows(Protocol):
    """Takes a picture's next rows, (3, n, w), and their alpha, (1, n, w), where it has one."""

    def __call__(self, rgb_3nw: Tensor, alpha_1nw: Tensor | None = None, /) -> None: ...


def outline(picture: Picture, size: tuple[int, int]) -> Picture:
    """The upscaled picture of size ``(H, W)``, with placeholder pixels that take no memory."""
    nothing = torch.zeros(1, 1, 1)
    alpha = None if picture.alpha is None else nothing.expand(1, *size)
    return picture.upscaled(nothing.expand(3, *size), alpha)


@contextmanager
def written_by_rows(
    picture: Picture,
    path: str | Path,
    quality: int | None = None,
    format: str | None = None,
) -> Iterator[TakesRows]:
    """Writes a picture as `write` does, from rows that are given to what this returns.

    Rows are as in `Picture`. The file has its name once the block is left with all rows given, and
    not if it is left by an exception, which passes through.

    Args:
        picture: only its size, depth and metadata count, see :func:`outline`.
        path: the file.
        quality: as for `write`.
        format: as for `write`.

    Raises:
        PictureError: as `write`; also from the rows' taker.
    """
    path = Path(path)
    format_, size = format_for(path, format), (picture.rgb.shape[-2], picture.rgb.shape[-1])
    inside: list[BaseException] = []
    try:
        _check_target(path, format_, size, quality)
        remove_stale_temporaries(path)
        with (
            atomic_writer(path) as file,
            _encoding(picture, file, format_, quality, str(path), inside) as put,
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
    picture: Picture,
    format: str,
    stream: BinaryIO,
    quality: int | None = None,
    name: str = "standard output",
) -> Iterator[TakesRows]:
    """As :func:`written_by_rows`, into a stream, which gets nothing before all is encoded.

    Until then it is in a temporary file, without a name, in the system's folder for such.

    Args:
        picture: see :func:`written_by_rows`.
        format: a format's name or suffix.
        stream: is written to, from top to bottom.
        quality: as for `write`.
        name: what messages call it.

    Raises:
        PictureError: as `encode`; also from the rows' taker.
        OSError: of ``stream``.
    """
    format_ = format_named(format, f"{name}: ")
    check_size(format_, (picture.rgb.shape[-2], picture.rgb.shape[-1]), name)
    check_quality(format_, quality, name)
    with tempfile.TemporaryFile() as file:
        with _encoding(picture, file, format_, quality, name, []) as put:
            yield put
        file.seek(0)
        shutil.copyfileobj(file, stream, _PIECE)
        stream.flush()


@contextmanager
def _encoding(
    picture: Picture,
    file: BinaryIO,
    format_: Format,
    quality: int | None,
    name: str,
    inside: list[BaseException],
) -> Iterator[TakesRows]:
    """The rows' taker; ``inside`` gets what the block raises, to be told from our own errors."""
    with errors_of(name):
        rows = Encoder(picture, file, format_, quality, name)
    try:
        yield rows.put
    except BaseException as error:
        inside.append(error)
        rows.abandon()
        raise
    rows.finish()


def _check_target(path: Path, format_: Format, size: tuple[int, int], quality: int | None) -> None:
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
    folder = link_target(path).parent
    if not folder.is_dir():
        raise PictureError(f"{path}: the folder {folder} does not exist. Create it first.")


def _check_shapes(picture: Picture, name: str) -> None:
    rgb, alpha = picture.rgb, picture.alpha
    if rgb.ndim != 3 or len(rgb) != 3:
        raise PictureError(f"{name}: a picture is (3, h, w), got {tuple(rgb.shape)}.")
    if alpha is not None and alpha.shape != (1, *rgb.shape[1:]):
        raise PictureError(
            f"{name}: alpha is (1, h, w) of the picture's size, got {tuple(alpha.shape)}."
        )


def _put_all(picture: Picture, put: TakesRows) -> None:
    """A few rows at a time: a large picture in floating point takes more than all else."""
    for top in range(0, picture.rgb.shape[1], _ROWS):
        rows = slice(top, top + _ROWS)
        put(picture.rgb[:, rows], None if picture.alpha is None else picture.alpha[:, rows])

"""Pictures that visitors bring or choose: read, checked against the limit, never kept as files."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import Picture, bicubic, decode, fill_under_alpha, read_rgb8
from pcsr_lightning.images.comparison import eight_bit
from pcsr_lightning.inference import output_size

SAMPLES = {
    "coffee": "Coffee",
    "chelsea": "Cat",
    "astronaut": "Astronaut",
    "rocket": "Rocket",
    "retina": "Retina",
    "brick": "Bricks",
}
"""Shipped photographs by the stem of their file, and what the page calls them."""
SAMPLE_SCALE = 4
"""Samples are shrunk by this much, so that the photograph itself is there to compare with."""
SMALLEST_SCALE, LARGEST_SCALE = 1.0, 8.0
WHOSE_LIMIT = (
    "(Whoever runs the page sets the limit with --max-pixels; python -m pcsr_lightning.upscale has "
    "none.)"
)
_FOLDER = Path(__file__).parents[1] / "data" / "sample"


@dataclass(frozen=True)
class Loaded:
    """A picture to upscale.

    Attributes:
        name: of its file, as the visitor knows it; not to be trusted.
        picture: its content; under transparent pixels, ``rgb`` holds the colour near by.
        reference_3HW: what it should become, uint8, if that is known.
    """

    name: str
    picture: Picture
    reference_3HW: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """``(h, w)``."""
        return int(self.picture.rgb.shape[1]), int(self.picture.rgb.shape[2])


def sample_file(stem: str) -> Path:
    """The file of a shipped photograph.

    Raises:
        PictureError: it is not there.
    """
    found = [path for path in sorted(_FOLDER.glob("*/*")) if path.stem == stem]
    if not found:
        raise PictureError(f"the sample picture {stem!r} is missing; reinstall pcsr_lightning")
    return found[0]


def load_sample(stem: str) -> Loaded:
    """A shipped photograph, shrunk, with itself for a reference."""
    path = sample_file(stem)
    hr_3HW = read_rgb8(path)
    h, w = (n // SAMPLE_SCALE for n in hr_3HW.shape[1:])
    hr_3HW = hr_3HW[:, : h * SAMPLE_SCALE, : w * SAMPLE_SCALE].contiguous()
    lr_3hw = eight_bit(bicubic(hr_3HW.float() / 255, (h, w))) / 255
    return Loaded(path.name, Picture(lr_3hw), hr_3HW)


def load_upload(path: Path, max_pixels: int) -> Loaded:
    """A picture that was sent. Its file is deleted, whatever comes of it.

    Raises:
        PictureError: not a picture, damaged, or too large.
    """
    picture = _read_once(path, max_pixels)
    if picture.alpha is not None:
        picture = replace(picture, rgb=fill_under_alpha(picture.rgb, picture.alpha))
    return Loaded(path.name, picture)


def load_reference(path: Path, max_pixels: int) -> Tensor:
    """A picture to compare with, uint8 ``(3, H, W)``. Its file is deleted.

    Raises:
        PictureError: as for :func:`load_upload`.
    """
    return eight_bit(_read_once(path, max_pixels).rgb).to(torch.uint8)


def _read_once(path: Path, max_pixels: int) -> Picture:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path.name}: cannot be read ({error.strerror}).") from error
    finally:
        path.unlink(missing_ok=True)
    try:
        return decode(data, max_pixels, path.name)
    except PictureError as error:
        # A visitor cannot raise the limit: the advice is for programs.
        said, too_large, _ = str(error).partition(" Raise max_pixels")
        raise PictureError(f"{said} {WHOSE_LIMIT}" if too_large else said) from error


def result_size(lr_size: tuple[int, int], scale: float, max_pixels: int) -> tuple[int, int]:
    """The size ``(H, W)`` that a picture becomes.

    Raises:
        PictureError: it would have more than ``max_pixels``; says which scale would do.
    """
    H, W = output_size(lr_size, scale)
    if max_pixels >= H * W:
        return H, W
    most = math.floor(10 * math.sqrt(max_pixels / (lr_size[0] * lr_size[1]))) / 10
    hint = (
        f"scale {most:g} would do"
        if most >= SMALLEST_SCALE
        else "this picture is too large at any scale"
    )
    raise PictureError(
        f"at scale {scale:g} the result would have {W:,} x {H:,} = {W * H:,} pixels, and this page "
        f"makes at most {max_pixels:,}: {hint}. {WHOSE_LIMIT}"
    )

"""Pictures that visitors bring or choose: read, checked against the limit, never kept as files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import torch
from torch import Tensor

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import (
    Picture,
    PictureCondition,
    bicubic,
    decode,
    fill_under_alpha,
    picture_condition,
    read,
    read_rgb8,
)
from pcsr_lightning.images.comparison import eight_bit
from pcsr_lightning.images.picture import floats
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
LIVE_PIXELS = 2**23
"""Larger results are made as files; a part of them is shown. 4K (3840 x 2160) fits in."""
READ_PIXELS = 2**26
"""Of a file that is sent; telephones make up to 50 million."""
PART = (288, 384)
"""Height and width of the part that is shown of a large picture."""
OVERVIEW = 560
Window = tuple[int, int, int, int]
"""Top, left, height and width."""
WHOSE_LIMIT = (
    "(Whoever runs the page sets the limit with --max-pixels; python -m pcsr_lightning.upscale has "
    "none.)"
)
_FOLDER = Path(__file__).parents[1] / "data" / "sample"


@dataclass(frozen=True)
class Remedy:
    """What would let a refused request through.

    Attributes:
        label: of the button.
        scale: to be chosen.
        format: to be chosen.
    """

    label: str
    scale: float | None = None
    format: str | None = None


class RefusedError(PictureError):
    """A request that would be granted with another scale or format.

    Attributes:
        remedy: which.
    """

    def __init__(self, message: str, remedy: Remedy) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True)
class Loaded:
    """A picture to upscale.

    Attributes:
        name: of its file, as the visitor knows it; not to be trusted.
        picture: its content; under transparent pixels, ``rgb`` holds the colour near by. ``None``
            for a picture that is too large to be kept: its file is read again.
        reference_3HW: what it should become, uint8, if that is known.
        file: where it was read.
        size: ``(h, w)``.
        overview_hw3: it made small, uint8, where it may not be shown as a whole.
        condition: what it went through.
    """

    name: str
    picture: Picture | None
    reference_3HW: Tensor | None = None
    file: Path | None = None
    size: tuple[int, int] = (0, 0)
    overview_hw3: np.ndarray[Any, Any] | None = None
    condition: PictureCondition = field(default_factory=PictureCondition)

    def __post_init__(self) -> None:
        if self.picture is not None:
            object.__setattr__(self, "size", tuple(self.picture.rgb.shape[1:]))

    def window(self, scale: float, max_pixels: int, focus: tuple[float, float]) -> Window | None:
        """The part to show where the whole result is too large to be shown; else ``None``.

        Args:
            scale: of the result.
            max_pixels: that can be shown.
            focus: what it is about, as parts of height and width.
        """
        if self.overview_hw3 is None or self.size[0] * self.size[1] * scale**2 <= max_pixels:
            return None
        high, wide = PART if self.size[1] >= self.size[0] else PART[::-1]
        fits = min(1.0, math.sqrt(max_pixels / (high * wide * scale**2)))
        h, w = (min(n, int(fits * m)) for n, m in zip(self.size, (high, wide), strict=True))
        top, left = (
            min(max(0, round(at * n - m / 2)), n - m)
            for at, n, m in zip(focus, self.size, (h, w), strict=True)
        )
        return top, left, h, w

    def part(self, window: Window | None) -> Picture:
        """The picture, or a part of it, as floating point.

        Raises:
            PictureError: its file cannot be read any more.
        """
        if window is None and self.picture is not None:
            return self.picture
        whole = self.picture
        if whole is None:
            assert self.file is not None
            whole = read(self.file, None, as_integers=True)
        if window is None:
            return _seen(whole)
        top, left, h, w = window
        rows, columns = slice(top, top + h), slice(left, left + w)
        alpha = None if whole.alpha is None else whole.alpha[:, rows, columns]
        return _seen(replace(whole, rgb=whole.rgb[:, rows, columns].clone(), alpha=alpha))


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
    picture = Picture(lr_3hw)
    return Loaded(path.name, picture, hr_3HW, condition=picture_condition(picture))


def load_upload(path: Path, name: str, max_pixels: int) -> Loaded:
    """A picture that was sent.

    Args:
        path: its file, which stays.
        name: as the visitor knows it.
        max_pixels: that it may have.

    Raises:
        PictureError: not a picture, damaged, or too large.
    """
    picture = _read(path, name, max_pixels, as_integers=True)
    h, w = int(picture.rgb.shape[1]), int(picture.rgb.shape[2])
    image = pyvips.Image.new_from_array(np.ascontiguousarray(picture.rgb.permute(1, 2, 0).numpy()))
    small = image.thumbnail_image(OVERVIEW, height=OVERVIEW).numpy()
    overview_hw3 = (small >> 8).astype(np.uint8) if picture.bits > 8 else small
    kept = _seen(picture) if h * w <= LIVE_PIXELS else None
    return Loaded(name, kept, None, path, (h, w), overview_hw3, picture_condition(picture))


def _seen(picture: Picture) -> Picture:
    """As floating point, with colour under transparent pixels."""
    rgb = floats(picture.rgb)
    if picture.alpha is None:
        return replace(picture, rgb=rgb)
    alpha = floats(picture.alpha)
    return replace(picture, rgb=fill_under_alpha(rgb, alpha), alpha=alpha)


def load_reference(path: Path, max_pixels: int) -> Tensor:
    """A picture to compare with, uint8 ``(3, H, W)``. Its file is deleted.

    Raises:
        PictureError: as for :func:`load_upload`.
    """
    try:
        return eight_bit(_read(path, path.name, max_pixels).rgb).to(torch.uint8)
    finally:
        path.unlink(missing_ok=True)


def _read(path: Path, name: str, max_pixels: int, as_integers: bool = False) -> Picture:
    try:
        return decode(path.read_bytes(), max_pixels, name, as_integers)
    except OSError as error:
        raise PictureError(f"{name}: cannot be read ({error.strerror}).") from error
    except PictureError as error:
        # A visitor cannot raise the limit: the advice is for programs.
        said, too_large, _ = str(error).partition(" Raise max_pixels")
        raise PictureError(f"{said} {WHOSE_LIMIT}" if too_large else said) from error


def result_size(lr_size: tuple[int, int], scale: float, max_pixels: int) -> tuple[int, int]:
    """The size ``(H, W)`` that a picture becomes.

    Raises:
        RefusedError: it would have more than ``max_pixels``; says which scale would do.
        PictureError: none would.
    """
    H, W = output_size(lr_size, scale)
    if max_pixels >= H * W:
        return H, W
    most = math.floor(10 * math.sqrt(max_pixels / (lr_size[0] * lr_size[1]))) / 10
    said = (
        f"at scale {scale:g} the result would have {W:,} x {H:,} = {W * H:,} pixels, and this page "
        f"makes at most {max_pixels:,}"
    )
    if most < SMALLEST_SCALE:
        raise PictureError(f"{said}: this picture is too large at any scale. {WHOSE_LIMIT}")
    raise RefusedError(
        f"{said}: scale {most:g} would do. {WHOSE_LIMIT}", Remedy(f"Use scale {most:g}", most)
    )

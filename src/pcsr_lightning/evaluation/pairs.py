"""From an HR picture to what a benchmark compares: an LR picture and the HR pixels it answers for.

Legend: h w LR size, H W HR size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from torch import Tensor

from pcsr_lightning.errors import ConfigError, PictureError
from pcsr_lightning.inference import output_size
from pcsr_lightning.pictures import bicubic

PATCH, STEP = 32, 28
"""The patches of ClassSR and ARM: 32 LR pixels wide, one every 28."""


class Protocol(StrEnum):
    """Which pixels of a picture are measured."""

    WHOLE = "whole"
    PUBLISHED = "published"


class Pair(NamedTuple):
    """A picture to enlarge and the picture it should become, both in [0, 1] as float32.

    Attributes:
        lr_13hw: MATLAB-style bicubic, neither rounded nor clamped.
        hr_13HW: the truth.
    """

    lr_13hw: Tensor
    hr_13HW: Tensor


def scale_pair(scale: float | Sequence[float]) -> tuple[float, float]:
    """One scale, or (vertical, horizontal), as two numbers.

    Raises:
        ConfigError: neither one number nor two, or one that no picture can be enlarged by.
    """
    output_size((1, 1), scale)  # says what is wrong with it
    sy, sx = scale if isinstance(scale, Sequence) else (scale, scale)
    return float(sy), float(sx)


def shaved_border(scale: tuple[float, float]) -> int:
    """How many HR pixels a side are left out of the comparison: ``scale``, rounded up."""
    return math.ceil(max(scale))


def make_pair(
    hr_3HW: Tensor, scale: tuple[float, float], protocol: Protocol = Protocol.WHOLE
) -> Pair:
    """Degrades an HR picture, and crops it to the pixels that the protocol compares.

    ``whole``: the LR picture has ``floor(H / scale)`` rows, and the HR picture is cut at the bottom
    and the right to the size that such an LR picture is enlarged to; at a whole scale that is a
    multiple of the scale. ``published``, as in the paper's tables: the LR picture is then cut at
    the bottom and the right to ``28 n + 4`` pixels a side, so that methods working in patches of 32
    pixels every 28 see the same pixels; the HR picture accordingly.

    Args:
        hr_3HW: uint8.
        scale: vertical and horizontal.
        protocol: ``published`` needs whole scales.

    Raises:
        PictureError: the picture is too small for the protocol or for the shaved border.
        ConfigError: ``published`` at a scale that is not whole.
    """
    size = (hr_3HW.shape[-2], hr_3HW.shape[-1])
    # The tiny number: 33 rows are 30 times 1.1, although 33 / 1.1 falls short of 30 in binary.
    h, w = (math.floor(n / s + 1e-9) for n, s in zip(size, scale, strict=True))
    least = PATCH if protocol is Protocol.PUBLISHED else 1
    if min(h, w) < least:
        raise PictureError(
            f"{size[1]} x {size[0]} pixels are too few: protocol '{protocol}' needs at least "
            f"{math.ceil(least * scale[1])} x {math.ceil(least * scale[0])} at this scale"
        )
    H, W = output_size((h, w), scale)
    hr_13HW = hr_3HW[None, :, :H, :W].float() / 255
    lr_13hw = bicubic(hr_13HW, (h, w))
    if protocol is Protocol.PUBLISHED:
        if any(s != int(s) for s in scale):
            raise ConfigError(
                f"protocol=published: the tables know whole scales only, not {scale[0]} x "
                f"{scale[1]}; use protocol=whole"
            )
        h, w = (n - (n - PATCH) % STEP for n in (h, w))
        H, W = h * int(scale[0]), w * int(scale[1])
        lr_13hw, hr_13HW = lr_13hw[..., :h, :w], hr_13HW[..., :H, :W]
    if min(H, W) <= 2 * shaved_border(scale):
        raise PictureError(
            f"{size[1]} x {size[0]} pixels are too few: nothing is left once a border of "
            f"{shaved_border(scale)} is shaved off"
        )
    return Pair(lr_13hw.contiguous(), hr_13HW.contiguous())

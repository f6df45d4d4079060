"""From an HR picture to what a benchmark compares: an LR picture and the HR pixels it answers for.

Legend: h w LR size, H W HR size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError, PictureError
from pcsr_lightning.images import bicubic
from pcsr_lightning.images.picture import floats
from pcsr_lightning.inference import output_size
from pcsr_lightning.networks.patch_routed import PATCH, STEP

PATCH_SIZES = (16, 32, 64, 128)
"""Sides in LR pixels of the patches of Table 3, without overlap."""
TILE = PATCH_SIZES[-1]
"""Their pictures are cut to multiples of the largest, so that all sizes see the same pixels."""


class Protocol(StrEnum):
    """Which pixels of a picture are measured, and whether it is upscaled in patches."""

    FULL_IMAGE = "whole"
    PUBLISHED = "published"
    PATCHES = "patches"
    OVERLAPPED = "overlapped"

    @property
    def least(self) -> int:
        """LR pixels a side that a picture must have."""
        return {"published": PATCH, "overlapped": PATCH, "patches": TILE}.get(self.value, 1)

    def cut(self, n: int) -> int:
        """Of ``n`` rows or columns of the LR picture, how many are compared."""
        if self is Protocol.FULL_IMAGE:
            return n
        return n - (n % TILE if self is Protocol.PATCHES else (n - PATCH) % STEP)


class Pair(NamedTuple):
    """A picture to upscale and the ground truth.

    Attributes:
        lr_13hw: MATLAB-style bicubic, neither rounded nor clamped: float32, white is 1.
        truth_13HW: the ground truth: bytes, as in its file, or float32 in [0, 1].
    """

    lr_13hw: Tensor
    truth_13HW: Tensor

    @property
    def hr_13HW(self) -> Tensor:
        """The ground truth in [0, 1] as float32."""
        return floats(self.truth_13HW)


def scale_pair(scale: float | Sequence[float]) -> tuple[float, float]:
    """One scale, or (vertical, horizontal), as two numbers.

    Raises:
        ConfigError: neither one number nor two, or one that no picture can be upscaled by.
    """
    output_size((1, 1), scale)  # says what is wrong with it
    sy, sx = scale if isinstance(scale, Sequence) else (scale, scale)
    return float(sy), float(sx)


def shaved_border(scale: tuple[float, float]) -> int:
    """How many HR pixels a side are left out of the comparison: ``scale``, rounded up."""
    return math.ceil(max(scale))


def make_pair(
    hr_3HW: Tensor, scale: tuple[float, float], protocol: Protocol = Protocol.FULL_IMAGE
) -> Pair:
    """Degrades an HR picture, and crops it to the pixels that the protocol compares.

    ``whole``: the LR picture has ``floor(H / scale)`` rows, and the HR picture is cut at the bottom
    and the right to the size that such an LR picture is upscaled to; at an integer scale that is a
    multiple of the scale. ``published``, as in the paper's tables: the LR picture is then cut at
    the bottom and the right to ``28 n + 4`` pixels a side, so that methods working in patches of 32
    pixels every 28 see the same pixels; the HR picture accordingly. ``overlapped`` compares the
    same pixels. ``patches``, as in Table 3: likewise, to multiples of 128.

    Args:
        hr_3HW: uint8.
        scale: vertical and horizontal.
        protocol: all but ``whole`` need integer scales.

    Raises:
        PictureError: the picture is too small for the protocol or for the shaved border.
        ConfigError: another protocol than ``whole`` at a fractional scale.
    """
    size = (hr_3HW.shape[-2], hr_3HW.shape[-1])
    # The tiny number: 33 rows are 30 times 1.1, although 33 / 1.1 falls short of 30 in binary.
    h, w = (math.floor(n / s + 1e-9) for n, s in zip(size, scale, strict=True))
    least = protocol.least
    if min(h, w) < least:
        raise PictureError(
            f"{size[1]} x {size[0]} pixels are too few: protocol '{protocol}' needs at least "
            f"{math.ceil(least * scale[1])} x {math.ceil(least * scale[0])} at this scale"
        )
    H, W = output_size((h, w), scale)
    hr_13HW = hr_3HW[None, :, :H, :W]
    # One channel at a time: as floating point a large picture takes four times its bytes.
    parts = torch.split(hr_13HW, 1, dim=1)
    lr_13hw = torch.cat([bicubic(part.float().div_(255), (h, w)) for part in parts], dim=1)
    lr_13hw, hr_13HW = cut_pair(Pair(lr_13hw, hr_13HW), scale, protocol)
    if min(hr_13HW.shape[-2:]) <= 2 * shaved_border(scale):
        raise PictureError(
            f"{size[1]} x {size[0]} pixels are too few: nothing is left once a border of "
            f"{shaved_border(scale)} is shaved off"
        )
    return Pair(lr_13hw.contiguous(), hr_13HW.contiguous())


def cut_pair(pair: Pair, scale: tuple[float, float], protocol: Protocol) -> Pair:
    """The part of a full image that the protocol compares, at the top left.

    Raises:
        ConfigError: another protocol than ``whole`` at a fractional scale.
    """
    check_integer_scale(protocol, scale)
    if protocol is Protocol.FULL_IMAGE:
        return pair
    h, w = (protocol.cut(n) for n in pair.lr_13hw.shape[-2:])
    H, W = h * int(scale[0]), w * int(scale[1])
    return Pair(pair.lr_13hw[..., :h, :w], pair.truth_13HW[..., :H, :W])


def check_integer_scale(protocol: Protocol, scale: tuple[float, float]) -> None:
    """Refuses a fractional scale where the protocol cuts at LR pixels.

    Raises:
        ConfigError: as it says.
    """
    if protocol is not Protocol.FULL_IMAGE and any(s != int(s) for s in scale):
        raise ConfigError(
            f"protocol={protocol} needs an integer scale, not {scale[0]:g} x {scale[1]:g}; "
            "use protocol=whole"
        )

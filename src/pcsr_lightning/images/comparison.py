"""How the field compares images: both rounded to 8 bit, a border shaved off."""

from __future__ import annotations

import torch
from torch import Tensor

from pcsr_lightning.images.bicubic import bicubic


def eight_bit(picture: Tensor) -> Tensor:
    """A picture in [0, 1] on the 0..255 scale, clamped and rounded, still float.

    One of bytes, uint8, is there already.
    """
    if picture.dtype == torch.uint8:
        return picture.float()
    return picture.clamp(0, 1).mul(255).round()


def bicubic_bytes(picture_13hw: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture in [0, 1] resized by :func:`~pcsr_lightning.images.bicubic`: bytes.

    One channel at a time, which as floating point takes the most memory.
    """
    channels = (bicubic(x_11hw, size) for x_11hw in torch.split(picture_13hw, 1, dim=1))
    return torch.cat([eight_bit(channel).byte() for channel in channels], dim=1)


def shave(picture: Tensor, border: int) -> Tensor:
    """Without ``border`` pixels a side; unchanged where nothing would be left."""
    if min(picture.shape[-2:]) <= 2 * border or border == 0:
        return picture
    return picture[..., border:-border, border:-border]

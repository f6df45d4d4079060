"""How the field compares images: both rounded to 8 bit, a border shaved off."""

from __future__ import annotations

from torch import Tensor


def eight_bit(picture: Tensor) -> Tensor:
    """A picture in [0, 1] on the 0..255 scale, clamped and rounded, still float."""
    return picture.clamp(0, 1).mul(255).round()


def shave(picture: Tensor, border: int) -> Tensor:
    """Without ``border`` pixels a side; unchanged where nothing would be left."""
    if min(picture.shape[-2:]) <= 2 * border or border == 0:
        return picture
    return picture[..., border:-border, border:-border]

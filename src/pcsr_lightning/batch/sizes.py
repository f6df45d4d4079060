"""How large a picture is to become: a size asked for in words, and what it means for a picture.

Users name width first, as everybody does on a screen; tensors have the height first.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pcsr_lightning.errors import ConfigError

MAX_SCALE = 16
"""The same as the network allows; here too, so that no library is loaded for a typing error.
A test holds the two together."""


class WantedSize(NamedTuple):
    """``--size``: a box to fit into, or the exact size.

    Attributes:
        width: ``None`` where only the height was named.
        height: ``None`` where only the width was named.
        exact: both sides become exactly this, whatever that does to the picture's shape; else the
            shape is kept, and the larger of its sides, measured against the box, fills it.
    """

    width: int | None
    height: int | None
    exact: bool = False

    @classmethod
    def parse(cls, text: str) -> WantedSize:
        """``3840x2160``, ``3840x`` or ``x2160``.

        Raises:
            ValueError: the text is none of these.
        """
        found = re.fullmatch(r"(\d{1,9})?[xX](\d{1,9})?", text.strip(), re.ASCII)
        if found is None or not any(found.groups()):
            raise ValueError(f"{text!r} is not a size, such as 3840x2160, 3840x or x2160")
        width, height = (None if n is None else int(n) for n in found.groups())
        if 0 in (width, height):
            raise ValueError(f"{text!r}: a size must be at least 1x1")
        return cls(width, height)

    def __str__(self) -> str:
        return f"{self.width or ''}x{self.height or ''}"

    def of(self, lr_size: tuple[int, int]) -> tuple[int, int]:
        """The result's ``(H, W)`` for a picture of ``(h, w)``.

        Where the shape is kept, the side that binds is met exactly and the other is rounded to the
        nearest whole pixel, halves up, in whole numbers throughout.

        Raises:
            ConfigError: the picture would shrink, or grow more than 16 times; with the numbers.
        """
        h, w = lr_size
        if self.exact and self.height is not None and self.width is not None:
            H, W = self.height, self.width
        elif self.height is None or (self.width is not None and self.width * h <= self.height * w):
            W = self.width or 0
            H = max(1, (2 * h * W + w) // (2 * w))
        else:
            H = self.height
            W = max(1, (2 * w * H + h) // (2 * h))
        self._check((h, w), (H, W))
        return H, W

    def _check(self, lr_size: tuple[int, int], size: tuple[int, int]) -> None:
        (h, w), (H, W) = lr_size, size
        times = (H / h, W / w)
        if min(times) < 1:
            raise ConfigError(
                f"--size {self}: the picture has {w}x{h} pixels and would shrink to {W}x{H}; "
                "sizes below the picture's own are not made"
            )
        if max(times) > MAX_SCALE:
            raise ConfigError(
                f"--size {self}: the picture has {w}x{h} pixels and would grow {max(times):.3g} "
                f"times to {W}x{H}; at most {MAX_SCALE} times are made"
            )


def check_scale(scale: float) -> None:
    """A scale from the command line.

    Raises:
        ConfigError: not a number from 1 to 16.
    """
    if not 1 <= scale <= MAX_SCALE:
        raise ConfigError(
            f"--scale must be a finite number between 1 and {MAX_SCALE}, not {scale:g}"
        )

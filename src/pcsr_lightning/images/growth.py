"""How a picture's pixels have changed since its metadata were written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

_MOST_DENOMINATOR = 10_000

SIDEWAYS = {5, 6, 7, 8}
"""EXIF's numbers for pictures whose rows become columns."""


@dataclass(frozen=True)
class Growth:
    """What has become of the pixels.

    Attributes:
        across: pixels for each old one, along a row of the upright picture.
        down: likewise, along a column.
        turned: EXIF's number (1 to 8) for how the file's pixels were turned to be upright.
    """

    across: float = 1.0
    down: float = 1.0
    turned: int = 1

    def resized(self, across: float, down: float) -> Growth:
        """So much larger once more."""
        return replace(self, across=self.across * across, down=self.down * down)

    def density(self, x: float, y: float) -> tuple[float, float]:
        """Pixels across and down per some unit, of those that the file has."""
        if self.turned in SIDEWAYS:
            x, y = y, x
        return x * self.across, y * self.down

    def place(self, numbers: object) -> tuple[int, ...] | None:
        """Where something is now, from pixels across, down, and its width and height or diameter.

        None where that is not known: in a picture that was turned, or of numbers that are none.
        """
        if self.turned != 1 or not isinstance(numbers, Sequence) or not 2 <= len(numbers) <= 4:
            return None
        if not all(isinstance(number, int) for number in numbers):
            return None
        factors = (self.across, self.down, self.across, self.down)
        return tuple(round(n * f) for n, f in zip(numbers, factors, strict=False))


AS_IT_WAS = Growth()


def as_fraction(value: float) -> str:
    """A number as metadata have it, such as 201/2."""
    fraction = Fraction(value).limit_denominator(_MOST_DENOMINATOR)
    return f"{fraction.numerator}/{fraction.denominator}"

"""Where every training crop lies, by arithmetic alone: no sub-image files, no list of crops."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]


class CropIndex:
    """Numbers the dense crops of a list of pictures, picture by picture, row by row.

    Along each side crops of `crop` pixels start every `stride` pixels, and one more lies flush with
    the far edge where more than `min_rest` pixels remain beyond the last. A picture smaller than a
    crop has none. 800 pictures of 2040 x 1356 at the scales 1, .9, .8, .7 and .6 (about what
    DIV2K is) have 1,585,600 crops.

    >>> index = CropIndex([(128, 128), (177, 256)])
    >>> len(index)  # 1 + 2 x 3: rows at 0 and 49, columns at 0, 64 and 128
    7
    >>> [int(v) for v in index.locate(6)]
    [1, 49, 128]

    Args:
        sizes: (height, width) of each picture.
        crop: side of a crop in pixels.
        stride: pixels from one crop to the next.
        min_rest: the extra crop needs more than this many pixels left over.

    Raises:
        ValueError: a setting out of range.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        crop: int = 128,
        stride: int = 64,
        min_rest: int = 48,
    ) -> None:
        if crop < 1 or stride < 1 or min_rest < 0:
            raise ValueError(
                f"crop and stride must be at least 1 and min_rest at least 0, got {crop}, "
                f"{stride}, {min_rest}."
            )
        self.crop, self.stride = crop, stride
        self._sizes: Ints = np.asarray(sizes, dtype=np.int64).reshape(-1, 2)
        regular = np.where(self._sizes >= crop, (self._sizes - crop) // stride + 1, 0)
        rest = self._sizes - ((regular - 1) * stride + crop)
        self._grid: Ints = regular + ((regular > 0) & (rest > min_rest))
        self.counts: Ints = self._grid.prod(1)
        """How many crops each picture has."""
        self._ends: Ints = np.cumsum(self.counts)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, crop_number: ArrayLike) -> tuple[Ints, Ints, Ints]:
        """The picture, top and left of a crop, or of an array of crops (same shape out).

        Raises:
            IndexError: a number outside [0, len(self)).
        """
        number: Ints = np.asarray(crop_number, dtype=np.int64)
        if number.size and (number.min() < 0 or number.max() >= len(self)):
            raise IndexError(f"crop number outside [0, {len(self)})")
        picture: Ints = np.searchsorted(self._ends, number, side="right").astype(np.int64)
        within = number - (self._ends[picture] - self.counts[picture])
        row, column = np.divmod(within, self._grid[picture, 1])
        # Only the extra crop would reach past the far edge; it is moved back to be flush with it.
        last = self._sizes[picture] - self.crop
        top = np.minimum(row * self.stride, last[..., 0])
        left = np.minimum(column * self.stride, last[..., 1])
        return picture, top, left

"""What each training crop of a step shows, and how it is turned: a few numbers, drawn on the CPU.

They are drawn for the batch of all ranks, and depend on the seed and the step alone. So a run that
resumes sees the same crops, and one on several devices the crops of a run on one.
Shapes: `B` crops of a rank.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pcsr_lightning.data.crop_index import CropIndex
from pcsr_lightning.errors import ConfigError

Ints = NDArray[np.int64]


class CropPlan:
    """Which pixels the square windows of a batch show.

    Pixel (i, j) of a window is the one at row ``row + row_step * i`` and column
    ``column + column_step * j`` of its picture, or, where ``transposed``, the one at row
    ``row + row_step * j`` and column ``column + column_step * i``. Beyond its border the picture is
    mirrored. The crop itself begins ``margin`` pixels below and right of the window's corner.

    It is no tuple and no dataclass, so that loaders and Lightning leave it on the CPU.

    Args:
        numbers_7B: row by row the picture (its place in the crop index), row, row step (1 or -1),
            column, column step, transposed (0 or 1), and the side of the crop in HR pixels.
        largest: the largest side that a crop may have; without `mixed` that of all.
        margin: pixels of the picture around the crop.
        mixed: crops have sides of their own.
        step: whose batch it is.
        rank: whose share of it.
    """

    def __init__(
        self, numbers_7B: Ints, largest: int, margin: int, mixed: bool, step: int, rank: int
    ) -> None:
        self.numbers_7B, self.largest, self.margin, self.mixed = numbers_7B, largest, margin, mixed
        self.window = largest + 2 * margin
        self.step, self.rank = step, rank

    @property
    def side_B(self) -> Ints:
        """The side of each crop."""
        sides: Ints = self.numbers_7B[6]
        return sides


class CropPlanner:
    """Draws the plan of each step: crops, orientations, scales and places.

    The crops are an endless row of permutations of all crops, a new one each pass; step `i` takes
    `batch_size` of them from place `i * batch_size` on.

    Args:
        index: the crops, as large as the highest scale needs.
        batch_size: crops of a step over all ranks; `world_size` divides it.
        seed: of all random choices.
        lr_crop: side of an LR crop.
        scale: (lowest, highest); HR crops are `lr_crop` times a number in between, drawn uniformly,
            at a random place of the index's crop (PCSR, Sec. 4.1: [2, 4] for multi-scale training).
        margin: LR pixels around a crop.
        augment: flip and transpose crops at random, all eight orientations alike.
        mix_scales: each crop draws its own scale, and not each batch, if there are several.
        rank: of this process.
        world_size: how many processes there are.

    Raises:
        ConfigError: a batch cannot be shared out over them.
    """

    def __init__(
        self,
        index: CropIndex,
        batch_size: int,
        seed: int,
        lr_crop: int = 32,
        scale: tuple[float, float] = (4.0, 4.0),
        margin: float = 2.0,
        augment: bool = True,
        mix_scales: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size % world_size:
            raise ConfigError(
                f"data.batch_size={batch_size} counts the crops of all devices together and "
                f"cannot be shared out over {world_size}. Use a multiple of {world_size}."
            )
        self.index, self.batch_size, self.seed = index, batch_size, seed
        self.lr_crop, self.scale, self.margin = lr_crop, scale, margin
        self.augment, self.mix_scales = augment, mix_scales and scale[0] < scale[1]
        self.rank, self.world_size = rank, world_size

    def crop_numbers(self, step: int) -> Ints:
        """The crops of a step on all ranks."""
        first = step * self.batch_size
        data_epoch, place = np.divmod(np.arange(first, first + self.batch_size), len(self.index))
        numbers = np.empty(self.batch_size, np.int64)
        for epoch in np.unique(data_epoch):
            here = data_epoch == epoch
            numbers[here] = _permutation(self.seed, int(epoch), len(self.index))[place[here]]
        return numbers

    def plan(self, step: int) -> CropPlan:
        """This rank's share of a step's crops."""
        count = self.batch_size
        draw = np.random.default_rng([self.seed, step, 0])
        scale = draw.uniform(*self.scale, count if self.mix_scales else 1)
        side_B = np.broadcast_to(np.rint(self.lr_crop * scale).astype(np.int64), count)
        # The largest margin fits all windows of a batch, so that they are of one size.
        largest = self.index.crop if self.mix_scales else int(side_B[0])
        margin = int(np.ceil(self.margin * largest / self.lr_crop))
        picture_B, top_B, left_B = self.index.locate(self.crop_numbers(step))
        top_B, left_B = (
            at_B + draw.integers(0, self.index.crop - side_B, endpoint=True)
            for at_B in (top_B, left_B)
        )
        turns_3B = draw.integers(0, 2, (3, count))
        turns_3B *= self.augment
        rows = _walked(top_B, side_B, turns_3B[0], margin)
        columns = _walked(left_B, side_B, turns_3B[1], margin)
        numbers_7B = np.stack([picture_B, *rows, *columns, turns_3B[2], side_B])
        share = count // self.world_size
        own_7B = numbers_7B[:, self.rank * share : (self.rank + 1) * share]
        return CropPlan(own_7B, largest, margin, self.mix_scales, step, self.rank)


def _walked(first_B: Ints, side_B: Ints, backwards_B: Ints, margin: int) -> tuple[Ints, Ints]:
    """Where a window begins along one side of the picture, and the step from pixel to pixel."""
    start_B = np.where(backwards_B, first_B + side_B - 1 + margin, first_B - margin)
    return start_B, 1 - 2 * backwards_B


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, n: int) -> Ints:
    return np.random.default_rng([seed, epoch]).permutation(n)

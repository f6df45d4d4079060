"""The windows of a plan, cut out of the pictures.

Shapes: `B` windows, `S` their side.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pcsr_lightning.data.crop_plan import CropPlan

Pixels = NDArray[np.uint8]


def cut_windows(pixels: Callable[[int], Pixels], plan: CropPlan) -> Pixels:
    """A plan's windows, ``(B, 3, S, S)``.

    Args:
        pixels: gives a picture of the plan, ``(height, width, 3)``.
        plan: of the windows.
    """
    windows = plan.numbers_7B.T.tolist()
    window_B3SS = np.empty((len(windows), 3, plan.window, plan.window), np.uint8)
    for window_3SS, (picture, row, row_step, column, column_step, transposed, _) in zip(
        window_B3SS, windows, strict=True
    ):
        found_SS3 = _cut(pixels(picture), (row, column), (row_step, column_step), plan.window)
        window_3SS[:] = found_SS3.transpose((2, 1, 0) if transposed else (2, 0, 1))
    return window_B3SS


def _cut(pixels: Pixels, start: tuple[int, int], step: tuple[int, int], side: int) -> Pixels:
    """A window that begins at the pixel `start`, and may reach over the picture's border."""
    lowest = [at if by > 0 else at - side + 1 for at, by in zip(start, step, strict=True)]
    if all(0 <= low <= size - side for low, size in zip(lowest, pixels.shape, strict=False)):
        top, left = lowest
        return pixels[top : top + side, left : left + side][:: step[0], :: step[1]]
    rows, columns = (
        _mirrored(at + by * np.arange(side), size)
        for at, by, size in zip(start, step, pixels.shape, strict=False)
    )
    # Whole runs of rows first, then single pixels: twice as quick as both in one go.
    first, last = columns.min(), columns.max() + 1
    window: Pixels = pixels[rows, first:last].take(columns - first, axis=1)
    return window


def _mirrored(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Places in a row of `size` pixels, mirrored at both borders with the edge pixel repeated."""
    index = index % (2 * size)
    mirrored: NDArray[np.int64] = np.minimum(index, 2 * size - 1 - index)
    return mirrored

"""Line buffers: the rows of an image that a layer still needs.

Legend: r rows, w columns, C channels. Rows are kept channels last, ``(r, w, C)``, so that a run of
rows is one piece of memory that convolutions and matrix products read without a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor


class RowWindow:
    """Holds rows ``[start, stop)`` of an image; rows are added below and dropped above.

    Args:
        width: columns.
        channels: channels.
        rows: how many rows will be added at a time; sets how much memory is allocated first.
        dtype: of the values.
        padding: rows of zeros above row 0, and below the last one after :meth:`close`: a
            convolution's padding.
        device: of the memory.
    """

    def __init__(
        self,
        width: int,
        channels: int,
        rows: int,
        dtype: torch.dtype,
        padding: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.padding = padding
        self._memory = torch.empty(
            2 * rows + 2 * padding, width, channels, dtype=dtype, device=device
        )
        self._first = 0  # where row `start` lies in memory
        self.start = self.stop = -padding
        if padding:
            self.add(padding).zero_()

    def add(self, rows: int) -> Tensor:
        """Memory for the next ``rows`` rows, ``(rows, w, C)``, which the caller fills."""
        kept = self.stop - self.start
        if self._first + kept + rows > len(self._memory):
            self._make_room(kept, rows)
        at = self._first + kept
        self.stop += rows
        return self._memory[at : at + rows]

    def close(self) -> None:
        """Adds the padding below the last row."""
        if self.padding:
            self.add(self.padding).zero_()

    def __getitem__(self, rows: slice) -> Tensor:
        """Rows ``[rows.start, rows.stop)`` of the image: a view."""
        offset = self._first - self.start
        return self._memory[rows.start + offset : rows.stop + offset]

    def drop(self, before: int) -> None:
        """Frees the rows above ``before``."""
        dropped = min(max(before, self.start), self.stop) - self.start
        self.start += dropped
        self._first += dropped

    def _make_room(self, kept: int, rows: int) -> None:
        old = self._memory[self._first : self._first + kept]
        if kept + rows > len(self._memory):
            # Enough for a few strips, so that kept rows are not moved for each of them.
            size = kept + max(2 * rows, rows + kept // 2)
            self._memory = self._memory.new_empty(size, *self._memory.shape[1:])
        elif kept > self._first:
            old = old.clone()  # source and target overlap
        self._memory[:kept] = old
        self._first = 0

"""A few rows of a picture at a time: the memory of a network that is fed row by row.

Legend: r rows, w columns, C channels. Rows are kept channels last, ``(r, w, C)``, so that a run of
rows is one piece of memory that convolutions and matrix products read without a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor


class RowWindow:
    """The rows ``[start, stop)`` of a picture that grows at the bottom and is forgotten at the top.

    Args:
        width: columns.
        channels: channels.
        rows: how many new rows come at a time; decides how much memory is taken at first.
        dtype: of the values.
        margin: rows of zeros above row 0 (and below the last, see :meth:`close`), as a
            convolution's padding wants them.
        device: where the rows live.
    """

    def __init__(
        self,
        width: int,
        channels: int,
        rows: int,
        dtype: torch.dtype,
        margin: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.margin = margin
        self._memory = torch.empty(
            2 * rows + 2 * margin, width, channels, dtype=dtype, device=device
        )
        self._first = 0  # where row `start` lies in memory
        self.start = self.stop = -margin
        if margin:
            self.add(margin).zero_()

    def add(self, rows: int) -> Tensor:
        """Room for the next ``rows`` rows, ``(rows, w, C)``, to be filled by the caller."""
        kept = self.stop - self.start
        if self._first + kept + rows > len(self._memory):
            self._make_room(kept, rows)
        at = self._first + kept
        self.stop += rows
        return self._memory[at : at + rows]

    def close(self) -> None:
        """No more rows come: the padding below the last."""
        if self.margin:
            self.add(self.margin).zero_()

    def __getitem__(self, rows: slice) -> Tensor:
        """The rows ``[rows.start, rows.stop)`` of the picture: a view."""
        offset = self._first - self.start
        return self._memory[rows.start + offset : rows.stop + offset]

    def forget(self, before: int) -> None:
        """Rows above ``before`` are not needed any more."""
        gone = min(max(before, self.start), self.stop) - self.start
        self.start += gone
        self._first += gone

    def _make_room(self, kept: int, rows: int) -> None:
        old = self._memory[self._first : self._first + kept]
        if kept + rows > len(self._memory):
            # Room for a few strips, so that what is kept is not moved for every one of them.
            size = kept + max(2 * rows, rows + kept // 2)
            self._memory = self._memory.new_empty(size, *self._memory.shape[1:])
        elif kept > self._first:
            old = old.clone()  # the two places overlap
        self._memory[:kept] = old
        self._first = 0

"""From residuals to finished rows: the upsampled input beneath them, and refinement at the end.

Legend: B batch, h w LR size, H W HR size, n HR rows of a strip.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pcsr_lightning.inference.input_rows import InputRows

INTEGER_TYPES = {8: torch.uint8, 16: torch.uint16}
"""The types of pictures as integers, by their bits."""

Refine = Callable[[Tensor, Tensor], Tensor]
"""Refines rows ``(B, 3, n, W)`` whose classes are ``(B, n, W)``."""


class UpsampledRows:
    """The upsampled input, ``upX`` of Eq. 6, any rows of it, however it is cut.

    Args:
        lr: the pictures.
        size: ``(H, W)``.
        nearest: repeat pixels, instead of bilinear interpolation.

    Attributes:
        tables: the LR row above each HR row's centre, the one below it, and the weight of the
            second; the same of columns.
    """

    def __init__(self, lr: InputRows, size: tuple[int, int], nearest: bool = False) -> None:
        self._lr = lr
        between = _nearest if nearest else _between
        rows, columns = between(lr.shape[2], size[0]), between(lr.shape[3], size[1])
        self._low_high_H = rows[:2]  # on the CPU
        self.tables = tuple(table.to(lr.device) for table in (*rows, *columns))

    def lr_rows(self, top: int, bottom: int) -> tuple[Tensor, int]:
        """The LR rows ``(B, 3, r, w)`` that HR rows ``[top, bottom)`` need, and the first's row."""
        low_H, high_H = self._low_high_H
        first = int(low_H[top])
        return self._lr.rows(first, int(high_H[bottom - 1]) + 1), first

    def rows(self, top: int, bottom: int) -> Tensor:
        """HR rows ``[top, bottom)``: ``(B, 3, n, W)``."""
        low_H, high_H, weight_H, low_W, high_W, weight_W = self.tables
        few, first = self.lr_rows(top, bottom)
        wide = torch.lerp(few.index_select(3, low_W), few.index_select(3, high_W), weight_W)
        above, below = (wide.index_select(2, x[top:bottom] - first) for x in (low_H, high_H))
        return torch.lerp(above, below, weight_H[top:bottom, None])


def _between(n_lr: int, n_hr: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two LR pixels around each HR centre, and the weight of the second."""
    centre = (torch.arange(n_hr, dtype=torch.float64) + 0.5) * n_lr / n_hr - 0.5
    centre.clamp_(0, n_lr - 1)
    low = centre.floor().long()
    weight = (centre - low).float()
    return low, (low + 1).clamp_(max=n_lr - 1), weight


def _nearest(n_lr: int, n_hr: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same for the LR pixel that each HR pixel lies in, alone."""
    lr_of_hr = torch.arange(n_hr) * n_lr // n_hr
    return lr_of_hr, lr_of_hr, torch.zeros(n_hr)


class RefinedRows:
    """Refinement (Sec. 3.4) of rows that come a few at a time; it lags one row behind.

    Args:
        height: ``H``.
        refine: refines rows; ``None`` to leave them as they are.
    """

    def __init__(self, height: int, refine: Refine | None) -> None:
        self.height, self._refine = height, refine
        self.given = 0
        self._sr: Tensor | None = None
        self._class: Tensor | None = None

    def push(self, sr_B3nW: Tensor, class_BnW: Tensor) -> tuple[int, Tensor]:
        """Takes the next rows; gives the first row that is finished now, and those that are."""
        if self._refine is None:
            top = self.given
            self.given += int(sr_B3nW.shape[2])
            return top, sr_B3nW
        if self._sr is not None and self._class is not None:
            sr_B3nW = torch.cat([self._sr, sr_B3nW], dim=2)
            class_BnW = torch.cat([self._class, class_BnW], dim=1)
        n = int(sr_B3nW.shape[2])  # while torch traces, sizes are tensors
        # Rows that were given already, but whose neighbours are still needed.
        known = 0 if self.given == 0 else 1
        complete = self.given - known + n == self.height
        top, stop = self.given, n if complete else n - 1
        if stop <= known:
            self._sr, self._class = sr_B3nW, class_BnW
            return top, sr_B3nW[:, :, :0]
        done = self._refine(sr_B3nW, class_BnW)[:, :, known:stop]
        keep = max(0, stop - 1)
        self._sr, self._class = sr_B3nW[:, :, keep:].clone(), class_BnW[:, keep:].clone()
        self.given += stop - known
        return top, done


def as_integers(rows_B3nW: Tensor, bits: int) -> Tensor:
    """Rows clamped and rounded to so many bits, still float32; overwrites its input.

    Rows of integers are returned as they are: a kernel has rounded them.
    """
    if not rows_B3nW.is_floating_point():
        return rows_B3nW
    return rows_B3nW.clamp_(0, 1).mul_(2**bits - 1).round_()

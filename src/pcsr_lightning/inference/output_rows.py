"""From residuals to finished rows: the upsampled input beneath them, and refinement at the end.

Legend: B batch, h w LR size, H W HR size, n HR rows of a strip.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pcsr_lightning.inference.input_rows import InputRows
from pcsr_lightning.routing.refine import refine


class UpsampledRows:
    """The upsampled input, ``upX`` of Eq. 6, any rows of it, however it is cut.

    Args:
        lr: the pictures.
        size: ``(H, W)``.
        nearest: repeat pixels, instead of bilinear interpolation.
    """

    def __init__(self, lr: InputRows, size: tuple[int, int], nearest: bool = False) -> None:
        self._lr = lr
        between = _nearest if nearest else _between
        self._low_H, self._high_H, self._weight_H = between(lr.shape[2], size[0], lr.device)
        self._low_W, self._high_W, self._weight_W = between(lr.shape[3], size[1], lr.device)

    def rows(self, top: int, bottom: int) -> Tensor:
        """HR rows ``[top, bottom)``: ``(B, 3, n, W)``."""
        low, high = self._low_H[top:bottom], self._high_H[top:bottom]
        first, last = int(low[0]), int(high[-1])
        few = self._lr.rows(first, last + 1)
        left, right = few.index_select(3, self._low_W), few.index_select(3, self._high_W)
        wide = torch.lerp(left, right, self._weight_W)
        above, below = wide.index_select(2, low - first), wide.index_select(2, high - first)
        return torch.lerp(above, below, self._weight_H[top:bottom, None])


def _between(n_lr: int, n_hr: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The two LR pixels around each HR centre, and the weight of the second."""
    centre = (torch.arange(n_hr, dtype=torch.float64) + 0.5) * n_lr / n_hr - 0.5
    centre.clamp_(0, n_lr - 1)
    low = centre.floor().long()
    weight = (centre - low).float()
    return low.to(device), (low + 1).clamp_(max=n_lr - 1).to(device), weight.to(device)


def _nearest(n_lr: int, n_hr: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The same for the LR pixel that each HR pixel lies in, alone."""
    lr_of_hr = torch.arange(n_hr, device=device) * n_lr // n_hr
    return lr_of_hr, lr_of_hr, torch.zeros(n_hr, device=device)


class RefinedRows:
    """Refinement (Sec. 3.4) of rows that come a few at a time; it lags one row behind.

    Args:
        height: ``H``.
        num_classes: ``M``.
        refining: whether anything is done at all.
    """

    def __init__(self, height: int, num_classes: int, refining: bool) -> None:
        self.height, self.num_classes, self.refining = height, num_classes, refining
        self.given = 0
        self._sr: Tensor | None = None
        self._class: Tensor | None = None

    def push(self, sr_B3nW: Tensor, class_BnW: Tensor) -> tuple[int, Tensor]:
        """Takes the next rows; gives the first row that is finished now, and those that are."""
        if not self.refining:
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
        done = refine(sr_B3nW, class_BnW, self.num_classes)[:, :, known:stop]
        keep = max(0, stop - 1)
        self._sr, self._class = sr_B3nW[:, :, keep:].clone(), class_BnW[:, keep:].clone()
        self.given += stop - known
        return top, done

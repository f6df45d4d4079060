"""From HR pixels to the LR pixels that they ask, and back.

Legend: B batch, h w LR size, H W HR size, c scores of a pixel, r LR rows and n HR rows of a strip.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pcsr_lightning.inference.kernels import Strip
from pcsr_lightning.networks import QueryGrid


class LRPixels:
    """The HR pixels of each LR pixel: those to which it is the nearest. At scales of 1 and more,
    each LR pixel has some.

    Args:
        grid: the whole picture's queries.
    """

    def __init__(self, grid: QueryGrid) -> None:
        self._rows_H, self._cols_W = grid.rows_H, grid.cols_W
        self._first_h, self._count_h = _runs(grid.rows_H, grid.lr_size[0])
        self._first_w, self._count_w = _runs(grid.cols_W, grid.lr_size[1])
        self._most = (int(self._count_h.max()), int(self._count_w.max()))

    def mean(self, score_BcnW: Tensor, strip: Strip) -> Tensor:
        """The means over a strip's LR pixels, and behind them the number of their HR pixels.

        Sums are made in an order of their own, so that no bit depends on the strip.

        Returns:
            ``(B, c + 1, r, w)``, float32.
        """
        rows = slice(strip.top, strip.bottom)
        first_r, count_r = self._first_h[rows] - strip.hr_top, self._count_h[rows]
        sum_BcrW = _sums(score_BcnW, 2, first_r, count_r, self._most[0])
        sum_Bcrw = _sums(sum_BcrW, 3, self._first_w, self._count_w, self._most[1])
        area_rw = (count_r[:, None] * self._count_w).to(sum_Bcrw.dtype)
        area_B1rw = area_rw.expand(len(sum_Bcrw), 1, -1, -1)
        return torch.cat([sum_Bcrw / area_rw, area_B1rw], dim=1)

    def expand(self, class_Brw: Tensor, strip: Strip) -> Tensor:
        """Every HR pixel of a strip gets what its LR pixel has: ``(B, n, W)``."""
        near_n = self._rows_H[strip.hr_top : strip.hr_bottom] - strip.top
        return class_Brw.index_select(1, near_n).index_select(2, self._cols_W)


def _runs(nearest_N: Tensor, n_lr: int) -> tuple[Tensor, Tensor]:
    """Each LR row's or column's first HR one, and how many there are."""
    ends = torch.arange(n_lr + 1, device=nearest_N.device)
    edges = torch.searchsorted(nearest_N, ends)
    return edges[:-1], edges.diff()


def _sums(x: Tensor, dim: int, first_L: Tensor, count_L: Tensor, most: int) -> Tensor:
    """Sums over runs of neighbours along a dimension, in their order."""
    out, shape = x.index_select(dim, first_L), [-1, 1] if dim == 2 else [-1]
    for i in range(1, most):
        more = x.index_select(dim, (first_L + i).clamp_(max=x.shape[dim] - 1))
        out += more.where((i < count_L).view(shape), 0)
    return out

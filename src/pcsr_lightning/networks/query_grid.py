"""The nearest LR pixel of each HR pixel and the offset to it: Eq. 4 without coordinate tensors.

Rows and columns are independent: the nearest LR row and the vertical offset depend on the HR row
alone. Two short vectors per direction therefore replace the published code's tensors of
``H * W * 4`` values, at any scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError


@dataclass(frozen=True)
class QueryGrid:
    """The queries of an ``(H, W)`` picture made from an ``(h, w)`` one.

    Offsets and cells are in units in which an LR pixel is 2 wide, so offsets lie in [-1, 1].

    Attributes:
        lr_size: ``(h, w)``.
        size: ``(H, W)``.
        rows_H: LR row nearest to each HR row's centre, int64.
        cols_W: LR column nearest to each HR column's centre, int64.
        dy_H: HR row centre minus that LR row's centre.
        dx_W: the same for columns.
        cell: the HR pixel's own height and width, ``(2h/H, 2w/W)``.
    """

    lr_size: tuple[int, int]
    size: tuple[int, int]
    rows_H: Tensor
    cols_W: Tensor
    dy_H: Tensor
    dx_W: Tensor
    cell: tuple[float, float]

    @classmethod
    def make(
        cls,
        lr_size: tuple[int, int],
        size: tuple[int, int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> QueryGrid:
        """The grid for these sizes.

        Raises:
            ConfigError: a size is not positive, or the image would shrink.
        """
        if min(*lr_size, *size) < 1 or size[0] < lr_size[0] or size[1] < lr_size[1]:
            raise ConfigError(
                f"cannot query a picture of {size[0]} x {size[1]} from one of "
                f"{lr_size[0]} x {lr_size[1]} pixels: sizes must be positive and must not shrink"
            )
        rows_H, dy_H = _nearest(lr_size[0], size[0], device, dtype)
        cols_W, dx_W = _nearest(lr_size[1], size[1], device, dtype)
        cell = (2 * lr_size[0] / size[0], 2 * lr_size[1] / size[1])
        return cls(lr_size, size, rows_H, cols_W, dy_H, dx_W, cell)

    @property
    def integer_scale(self) -> tuple[int, int] | None:
        """``(H/h, W/w)`` if both are whole numbers, else ``None``."""
        (h, w), (H, W) = self.lr_size, self.size
        return None if H % h or W % w else (H // h, W // w)

    def lr_index(self, i: Tensor, j: Tensor) -> Tensor:
        """Flat LR index ``row * w + column`` of HR rows and columns."""
        return self.rows_H[i] * self.lr_size[1] + self.cols_W[j]

    def split(self, queries_K: Tensor) -> tuple[Tensor, Tensor]:
        """HR row and column of flat HR indices ``i * W + j``."""
        i = torch.div(queries_K, self.size[1], rounding_mode="floor")
        return i, queries_K - i * self.size[1]


def _nearest(
    n_lr: int, n_hr: int, device: torch.device | str, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Nearest LR index and offset to it for each of ``n_hr`` centres along one direction.

    In whole numbers, so that a centre exactly between two LR pixels always takes the later one:
    ``floor((i + .5) * n_lr / n_hr)``.
    """
    twice = (2 * torch.arange(n_hr, dtype=torch.int64) + 1) * n_lr
    index = torch.div(twice, 2 * n_hr, rounding_mode="floor")
    # centre - (index + .5), times 2, over a common denominator: exact until the last division.
    offset = (twice - (2 * index + 1) * n_hr).to(torch.float64) / n_hr
    return index.to(device), offset.to(device=device, dtype=dtype)

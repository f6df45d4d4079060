"""Random HR pixels of every LR pixel, as training draws them: ``stage.queries=per_pixel:N``.

Every LR pixel has equally many queries, so an MLP's projected feature of an LR pixel is broadcast
to its queries instead of being gathered, and each crop may have a scale of its own.

Legend: B crops, h w LR size, H W HR size, N queries of each LR pixel, Q = h * w * N.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError


@dataclass(frozen=True)
class CellQueries:
    """``N`` HR pixels of every LR pixel of every crop.

    An HR pixel belongs to the LR pixel nearest to its centre, by the rule of
    :class:`~pcsr_lightning.networks.QueryGrid`.

    Attributes:
        row_BhwN: HR row in the crop, int64.
        col_BhwN: HR column in the crop, int64.
        offset_BhwN4: ``[dy, dx, cell_y, cell_x]``, the MLPs' inputs beside the LR feature.
    """

    row_BhwN: Tensor
    col_BhwN: Tensor
    offset_BhwN4: Tensor

    @classmethod
    def make(
        cls,
        row_BhwN: Tensor,
        col_BhwN: Tensor,
        size_B2: Tensor,
        dtype: torch.dtype = torch.float32,
    ) -> CellQueries:
        """These HR pixels of each LR pixel.

        Args:
            row_BhwN: HR row of each query, int64; it must belong to the query's LR row.
            col_BhwN: HR column, likewise.
            size_B2: ``(H, W)`` of each crop, int64.
            dtype: of the offsets, ``float32`` or ``float64``.
        """
        h, w = row_BhwN.shape[1:3]
        H_B111, W_B111 = _sizes(size_B2)
        lr_row_h11, lr_col_w1 = _lr_indices(h, w, row_BhwN.device)
        # centre - LR centre, times 2, over a common denominator: exact until the division, and of
        # numbers below 2^24 float32 rounds the quotient as QueryGrid does, which has it in float64.
        dy_BhwN = (2 * row_BhwN + 1) * h - (2 * lr_row_h11 + 1) * H_B111
        dx_BhwN = (2 * col_BhwN + 1) * w - (2 * lr_col_w1 + 1) * W_B111
        H, W = H_B111.to(dtype), W_B111.to(dtype)
        offsets = [dy_BhwN.to(dtype) / H, dx_BhwN.to(dtype) / W]
        # full_like: a number divided by a tensor is the number times the reciprocal.
        cells = [torch.full_like(H, 2 * h) / H, torch.full_like(W, 2 * w) / W]
        parts = [*offsets, *(cell_B111.expand_as(offsets[0]) for cell_B111 in cells)]
        return cls(row_BhwN, col_BhwN, torch.stack(parts, dim=-1))

    @classmethod
    def draw(
        cls,
        lr_size: tuple[int, int],
        size_B2: Tensor,
        count: int,
        generator: torch.Generator,
        share: tuple[int, int] = (0, 1),
        dtype: torch.dtype = torch.float32,
    ) -> CellQueries:
        """``count`` random HR pixels of each LR pixel, with replacement, for each crop by itself.

        Args:
            lr_size: ``(h, w)``.
            size_B2: ``(H, W)`` of each crop, int64, on the generator's device; at least
                ``(h, w)``.
            count: ``N``.
            generator: of the draws.
            share: which of how many equal shares of a batch these crops are: the processes of a
                distributed training draw what one process would.
            dtype: of the offsets.

        Raises:
            ConfigError: ``count`` is less than 1.
        """
        if count < 1:
            raise ConfigError(f"cannot draw {count} HR pixels of each LR pixel: at least 1")
        (h, w), (number, shares), B = lr_size, share, len(size_B2)
        shape = (2, shares * B, h, w, count)
        random = torch.rand(shape, generator=generator, device=generator.device)
        row_BhwN, col_BhwN = random[:, number * B : (number + 1) * B]
        H_B111, W_B111 = _sizes(size_B2)
        lr_row_h11, lr_col_w1 = _lr_indices(h, w, generator.device)
        return cls.make(
            _pick(row_BhwN, lr_row_h11, h, H_B111),
            _pick(col_BhwN, lr_col_w1, w, W_B111),
            size_B2,
            dtype,
        )

    def at(self, hr_B3HW: Tensor) -> Tensor:
        """The values of HR crops at the queries, ``(B, 3, Q)``.

        Args:
            hr_B3HW: each crop at the top left of its part of the tensor.
        """
        return _look_up(hr_B3HW, self.row_BhwN, self.col_BhwN).flatten(2)

    def base(self, lr_B3hw: Tensor) -> Tensor:
        """The bilinearly upsampled LR crops at the queries, ``(B, 3, Q)``.

        As :func:`~pcsr_lightning.networks.bilinear_upsample`, which upsamples all pixels.
        """
        h, w = lr_B3hw.shape[-2:]
        dy_BhwN, dx_BhwN = self.offset_BhwN4[..., 0], self.offset_BhwN4[..., 1]
        lr_row_h11, lr_col_w1 = _lr_indices(h, w, lr_B3hw.device)
        row_BhwN, next_row_BhwN = _nearest_two(lr_row_h11, dy_BhwN, h)
        col_BhwN, next_col_BhwN = _nearest_two(lr_col_w1, dx_BhwN, w)
        across = (dx_BhwN.abs() / 2).to(lr_B3hw.dtype)[:, None]
        down = (dy_BhwN.abs() / 2).to(lr_B3hw.dtype)[:, None]
        near, far = (
            torch.lerp(
                _look_up(lr_B3hw, row, col_BhwN), _look_up(lr_B3hw, row, next_col_BhwN), across
            )
            for row in (row_BhwN, next_row_BhwN)
        )
        return torch.lerp(near, far, down).flatten(2)


def _sizes(size_B2: Tensor) -> tuple[Tensor, Tensor]:
    """Heights and widths, ``(B, 1, 1, 1)``."""
    H_B111, W_B111 = size_B2[:, :, None, None, None].unbind(1)
    return H_B111, W_B111


def _lr_indices(h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """LR rows ``(h, 1, 1)`` and LR columns ``(w, 1)``."""
    rows_h, cols_w = (torch.arange(n, device=device) for n in (h, w))
    return rows_h[:, None, None], cols_w[:, None]


def _pick(random_BhwN: Tensor, lr_index: Tensor, n_lr: int, n_hr: Tensor) -> Tensor:
    """For random numbers in [0, 1), one of the HR rows (or columns) of each LR one.

    HR row ``i`` belongs to LR row ``floor((i + .5) * n_lr / n_hr)``.
    """
    first, end = (
        -torch.div(n_lr - 2 * a * n_hr, 2 * n_lr, rounding_mode="floor")
        for a in (lr_index, lr_index + 1)
    )
    # In float32 u * n is less than n for every u < 1.
    return first + (random_BhwN * (end - first)).long()


def _nearest_two(lr_index: Tensor, offset_BhwN: Tensor, n_lr: int) -> tuple[Tensor, Tensor]:
    """A query's LR row (or column) and the next one on the query's side; at a border itself."""
    beside = torch.where(offset_BhwN < 0, lr_index - 1, lr_index + 1).clamp(0, n_lr - 1)
    return lr_index.expand_as(beside), beside


def _look_up(values_BCHW: Tensor, row_BhwN: Tensor, col_BhwN: Tensor) -> Tensor:
    """What lies at rows and columns, ``(B, C, h, w, N)``."""
    crop_B111 = torch.arange(len(values_BCHW), device=values_BCHW.device)[:, None, None, None]
    return values_BCHW[crop_B111, :, row_BhwN, col_BhwN].movedim(-1, 1)

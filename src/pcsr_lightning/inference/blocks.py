"""Gather - run - scatter: each pixel-level MLP on the queries that want it, a block at a time.

Legend: B batch, h w LR size, H W HR size, D feature channels, C width of the first layer,
n m HR rows and columns of a block, Q = B * n * m its queries, K queries of one class,
N = B * LR pixels of a block, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from pcsr_lightning.networks import PixelMLP, QueryGrid


@dataclass(frozen=True)
class Block:
    """A rectangle of LR pixels and all HR pixels that ask them.

    Blocks are cut at LR pixels, so that no LR pixel is ever projected twice.

    Attributes:
        grid: the whole picture's queries.
        batch: ``B``.
        lr: LR rows and columns.
        hr: HR rows and columns.
    """

    grid: QueryGrid
    batch: int
    lr: tuple[slice, slice]
    hr: tuple[slice, slice]

    @property
    def lr_size(self) -> tuple[int, int]:
        """LR rows and columns of the block."""
        return self.lr[0].stop - self.lr[0].start, self.lr[1].stop - self.lr[1].start

    @property
    def size(self) -> tuple[int, int]:
        """``(n, m)``."""
        return self.hr[0].stop - self.hr[0].start, self.hr[1].stop - self.hr[1].start

    @property
    def queries(self) -> int:
        """``Q``."""
        return self.batch * self.size[0] * self.size[1]

    @property
    def lr_pixels(self) -> int:
        """``N``."""
        return self.batch * self.lr_size[0] * self.lr_size[1]

    @cached_property
    def local(self) -> QueryGrid:
        """The block's queries with its LR pixels numbered from 0.

        Its ``whole_scale`` speaks of the block alone: ask the whole picture's grid instead.
        """
        (rows, columns), (lr_rows, lr_columns) = self.hr, self.lr
        return replace(
            self.grid,
            lr_size=self.lr_size,
            size=self.size,
            rows_H=self.grid.rows_H[rows] - lr_rows.start,
            cols_W=self.grid.cols_W[columns] - lr_columns.start,
            dy_H=self.grid.dy_H[rows],
            dx_W=self.grid.dx_W[columns],
        )

    @cached_property
    def near_Q(self) -> Tensor:
        """The LR pixel that each query asks, both numbered within the block."""
        h, w = self.lr_size
        near_nm = self.local.rows_H[:, None] * w + self.local.cols_W
        first_B = torch.arange(self.batch, device=near_nm.device) * (h * w)
        return (first_B[:, None, None] + near_nm).flatten()


def cut(grid: QueryGrid, batch: int, queries: int) -> Iterator[Block]:
    """Blocks of about ``queries`` query pixels at most, but of one LR pixel at least.

    Whole LR rows as far as they fit; where a single one does not, it is cut into equal parts.
    """
    (h, w), (H, W) = grid.lr_size, grid.size
    row_starts, column_starts = _starts(grid.rows_H, h), _starts(grid.cols_W, w)
    # Averages suffice: the HR rows of any two LR rows differ by one at most.
    per_row = batch * W * H / h
    rows = min(h, max(1, int(queries / per_row)))
    parts = min(w, max(1, round(rows * per_row / queries)))
    edges = [w * i // parts for i in range(parts + 1)]
    for top in range(0, h, rows):
        stop = min(h, top + rows)
        for left, right in pairwise(edges):
            yield Block(
                grid,
                batch,
                (slice(top, stop), slice(left, right)),
                (
                    slice(row_starts[top], row_starts[stop]),
                    slice(column_starts[left], column_starts[right]),
                ),
            )


def _starts(nearest: Tensor, n: int) -> list[int]:
    """The first HR row (column) of each of ``n`` LR rows, and the number of all at the end."""
    # Nearest never falls, and at scales of 1 and more it misses no LR row.
    starts: list[int] = torch.searchsorted(nearest.cpu(), torch.arange(n + 1)).tolist()
    return starts


class HoistedMLP:
    """A pixel-level MLP made ready for one picture: its offset terms are computed once.

    Args:
        mlp: an upsampler or the classifier; its own methods do all the arithmetic.
        grid: the picture's queries.
    """

    def __init__(self, mlp: PixelMLP, grid: QueryGrid) -> None:
        self.mlp, self.whole_scale = mlp, grid.whole_scale
        self.rows_HC, self.cols_WC = mlp.offset_terms(grid)
        if self.whole_scale is not None:
            # The terms of every LR pixel's queries are the same s * s.
            sy, sx = self.whole_scale
            self.table_SC = (self.rows_HC[:sy, None] + self.cols_WC[:sx]).flatten(0, 1)

    def dense(self, feat_BDhw: Tensor, block: Block) -> Tensor:
        """At every query of a block: ``(Q, O)``. ``feat_BDhw``: the block's features."""
        if self.whole_scale is not None:
            # Broadcasting beats gathering; a block of a whole scale is a picture of that scale.
            return self.mlp.finish(self.mlp.first_layer(feat_BDhw, block.local).flatten(0, 2))
        queries_Q = torch.arange(block.queries, device=feat_BDhw.device)
        return self.sparse(feat_BDhw, block, queries_Q)

    def sparse(self, feat_BDhw: Tensor, block: Block, queries_K: Tensor) -> Tensor:
        """At some queries of a block, numbered within it: ``(K, O)``."""
        proj_NC = self.mlp.project_features(feat_BDhw).flatten(0, 2)
        first_KC = proj_NC.index_select(0, block.near_Q.index_select(0, queries_K))
        row_K = torch.div(queries_K, block.size[1], rounding_mode="floor")
        column_K = queries_K - row_K * block.size[1]
        if block.batch > 1:
            row_K = row_K.remainder(block.size[0])
        if self.whole_scale is not None:
            sy, sx = self.whole_scale
            term_K = row_K.remainder(sy) * sx + column_K.remainder(sx)
            first_KC += self.table_SC.index_select(0, term_K)
        else:
            rows, columns = block.hr
            first_KC += self.rows_HC[rows].index_select(0, row_K)
            first_KC += self.cols_WC[columns].index_select(0, column_K)
        return self.mlp.finish(first_KC)

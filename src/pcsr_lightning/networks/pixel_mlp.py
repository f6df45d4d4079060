"""The pixel-level MLP: upsamplers and classifier are both one (Sec. 3.2, Eq. 4).

Legend: B batch, h w LR size, H W HR size, D feature channels, C width of the first layer,
N any number of query pixels (of :class:`CellQueries`: of each LR pixel), O outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.networks.cell_queries import CellQueries
from pcsr_lightning.networks.query_grid import QueryGrid


class PixelMLP(nn.Module):
    """Linear, ReLU, ..., Linear on ``[z, dy, dx, cell_y, cell_x]``.

    The first layer is kept in two parts, because ``W [z, d] = Wz z + Wd d`` and the first term
    depends on the LR pixel alone: it is computed once per LR pixel (:meth:`project_features`)
    instead of once per query, and the second is a sum of a row's and a column's term
    (:meth:`offset_terms`). Same result to rounding, fewer operations, no coordinate tensors.
    :meth:`forward` is the plain form, on concatenated inputs.

    Args:
        in_channels: ``D``.
        hidden: widths of the hidden layers; none makes a single linear layer.
        out_channels: 3 for an upsampler, the number of classes for the classifier.
    """

    def __init__(self, in_channels: int, hidden: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.hidden, self.out_channels = in_channels, tuple(hidden), out_channels
        widths = [*hidden, out_channels]
        self.project = nn.Linear(in_channels, widths[0])
        self.offset = nn.Linear(4, widths[0], bias=False)
        # As one layer of D + 4 inputs would start.
        bound = (in_channels + 4) ** -0.5
        for part in (self.project.weight, self.project.bias, self.offset.weight):
            nn.init.uniform_(part, -bound, bound)
        tail: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            tail += [nn.ReLU(inplace=True), nn.Linear(a, b)]
        self.tail = nn.Sequential(*tail)

    def forward(self, x_ND4: Tensor) -> Tensor:
        """The plain LIIF form, ``(N, D + 4) -> (N, O)``, on concatenated inputs."""
        weight = torch.cat([self.project.weight, self.offset.weight], dim=1)
        return self.finish(F.linear(x_ND4, weight, self.project.bias))

    def project_features(self, feat_BDhw: Tensor) -> Tensor:
        """The hoisted part of the first layer, once per LR pixel: ``(B, h, w, C)``."""
        return F.linear(feat_BDhw.permute(0, 2, 3, 1), self.project.weight, self.project.bias)

    def offset_terms(self, grid: QueryGrid) -> tuple[Tensor, Tensor]:
        """What the first layer adds for each HR row, ``(H, C)``, and each HR column, ``(W, C)``."""
        w_dy, w_dx, w_cy, w_cx = self.offset.weight.unbind(dim=1)
        rows_HC = grid.dy_H[:, None] * w_dy + grid.cell[0] * w_cy
        cols_WC = grid.dx_W[:, None] * w_dx + grid.cell[1] * w_cx
        return rows_HC, cols_WC

    def first_layer(
        self, feat_BDhw: Tensor, grid: QueryGrid | CellQueries, queries_K: Tensor | None = None
    ) -> Tensor:
        """The first layer's output.

        Args:
            feat_BDhw: LR features.
            grid: all queries of a picture, or drawn ones of each LR pixel.
            queries_K: flat indices ``i * W + j`` of some queries of a grid.

        Returns:
            ``(B, H, W, C)`` at all queries of a grid, ``(B, K, C)`` at some, ``(B, h, w, N, C)`` at
            those of each LR pixel.
        """
        proj_BhwC = self.project_features(feat_BDhw)
        if isinstance(grid, CellQueries):
            # Broadcasting: nothing is gathered, and the gradient is a sum over N.
            terms_BhwNC = F.linear(grid.offset_BhwN4, self.offset.weight)
            return proj_BhwC[..., None, :] + terms_BhwNC
        rows_HC, cols_WC = self.offset_terms(grid)
        if queries_K is not None:
            i, j = grid.split(queries_K)
            near = proj_BhwC.flatten(1, 2).index_select(1, grid.lr_index(i, j))
            return near + (rows_HC[i] + cols_WC[j])
        B, h, w, C = proj_BhwC.shape
        if grid.integer_scale is not None:
            # Broadcasting instead of gathering: at integer scales the s*s terms repeat.
            sy, sx = grid.integer_scale
            terms = rows_HC[:sy, None, None, :] + cols_WC[:sx]  # (sy, 1, sx, C)
            first = proj_BhwC[:, :, None, :, None, :] + terms
            return first.reshape(B, h * sy, w * sx, C)
        near = proj_BhwC.index_select(1, grid.rows_H).index_select(2, grid.cols_W)
        return near + (rows_HC[:, None, :] + cols_WC)

    def finish(self, first_NC: Tensor) -> Tensor:
        """All layers after the first: ``(..., C) -> (..., O)``."""
        # Two dimensions: a linear layer's output in more of them is a view, and to write a view in
        # place makes autograd copy the gradient of all it is a view of.
        x = first_NC.reshape(-1, first_NC.shape[-1])
        for n, layer in enumerate(self.tail):
            # The input may be a view itself, so the first ReLU does not write into it.
            x = F.relu(x) if n == 0 else layer(x)
        return x.view(*first_NC.shape[:-1], x.shape[-1])

    def query(
        self, feat_BDhw: Tensor, grid: QueryGrid | CellQueries, queries_K: Tensor | None = None
    ) -> Tensor:
        """The whole MLP in its hoisted form, at the queries of :meth:`first_layer`.

        Returns:
            ``(B, O, H, W)``, ``(B, O, K)`` or ``(B, O, h, w, N)``.
        """
        return self.finish(self.first_layer(feat_BDhw, grid, queries_K)).movedim(-1, 1)


class BilinearOnly(PixelMLP):
    """The upsampler of a free class, whose pixels keep the bilinear picture: its residual is 0.

    It has no parameters and costs nothing (the paper names such a class as future work).

    Args:
        in_channels: ``D``; not read.
    """

    def __init__(self, in_channels: int) -> None:
        nn.Module.__init__(self)
        self.in_channels, self.hidden, self.out_channels = in_channels, (), 3

    def forward(self, x_ND4: Tensor) -> Tensor:
        return x_ND4.new_zeros(*x_ND4.shape[:-1], 3)

    def query(
        self, feat_BDhw: Tensor, grid: QueryGrid | CellQueries, queries_K: Tensor | None = None
    ) -> Tensor:
        B, _, h, w = feat_BDhw.shape
        if isinstance(grid, CellQueries):
            return feat_BDhw.new_zeros(B, 3, h, w, grid.offset_BhwN4.shape[3])
        return feat_BDhw.new_zeros(B, 3, *(grid.size if queries_K is None else queries_K.shape))


def plain_inputs(feat_BDhw: Tensor, grid: QueryGrid) -> Tensor:
    """The plain form's input: ``[z, dy, dx, cell_y, cell_x]`` of every query, ``(B, H*W, D+4)``.

    Slow and large on purpose: the reference that the hoisted form is tested and timed against.
    """
    near = feat_BDhw.index_select(2, grid.rows_H).index_select(3, grid.cols_W)
    B, _, H, W = near.shape
    where = torch.stack(
        [
            grid.dy_H[:, None].expand(H, W),
            grid.dx_W[None, :].expand(H, W),
            torch.full_like(near[0, 0], grid.cell[0]),
            torch.full_like(near[0, 0], grid.cell[1]),
        ]
    )
    x = torch.cat([near, where.expand(B, 4, H, W)], dim=1)
    return x.flatten(2).transpose(1, 2)

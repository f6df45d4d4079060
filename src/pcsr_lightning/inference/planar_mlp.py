"""Pixel-level MLPs in kernels that numba compiles, with queries in the lanes of vectors.

PyTorch's operators keep a query's channels in the lanes: 74 of them fill 80, and every layer of a
block of queries is written to memory. Here all layers of a few queries are computed at once, and
those of a class are picked, and their results put in place, on the way.

Legend: P LR pixels of a strip, D feature channels, C width of the first layer, L lines of queries,
W queries of a line, Q = L * W, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.inference.linear import linear
from pcsr_lightning.streaming.numba_runtime import (
    kernels_work,
    loaded_kernels,
    multiplies,
    run_in_threads,
    words,
)

Layer = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Lines:
    """Which LR pixel each query asks, and which offset it has.

    Attributes:
        pixel_L: an LR pixel of each line.
        row_L: which of the rows' terms a line has.
        pixel_W: the LR pixels of its queries, counted from the line's own.
        by_column: whether each of its queries has a term of its own, too.
    """

    pixel_L: Tensor
    row_L: Tensor
    pixel_W: Tensor
    by_column: bool


class PlanarMLP:
    """An upsampler or classifier whose hidden layers have the same width.

    Args:
        project_CD: the first layer's part that reads features.
        rows_RC: what it adds by line.
        cols_WC: what it adds by column; ``None`` if nothing.
        layers: weights ``(N, C)`` and biases of all later ones.
    """

    def __init__(
        self,
        project_CD: Tensor,
        rows_RC: Tensor,
        cols_WC: Tensor | None,
        layers: Sequence[Layer],
    ) -> None:
        kernels, dtype = loaded_kernels(), project_CD.dtype
        C, pair = len(project_CD), 4 // dtype.itemsize
        stride = -(-C // kernels.LANES) * kernels.LANES
        self._project_FD = F.pad(project_CD, (0, 0, 0, stride - C))
        self._rows = words(F.pad(rows_RC.float(), (0, stride - C)))
        cols_WC = torch.zeros(1, C) if cols_WC is None else cols_WC.float()
        self._cols = words(F.pad(cols_WC, (0, stride - C)))
        self._stride, self._tiles = stride, kernels.mlp_tiles(C, len(layers[-1][0]), pair)
        full = len(self._tiles[0][0])
        weight = [_packed(w[o : o + full], pair) for w, _ in layers for o in range(0, len(w), full)]
        bias = [b.float() for _, b in layers]
        self._layers = C, pair, len(layers) - 1, words(torch.cat(weight)), words(torch.cat(bias))

    @staticmethod
    def of(
        project_CD: Tensor, rows_RC: Tensor, cols_WC: Tensor | None, layers: Sequence[Layer]
    ) -> PlanarMLP | None:
        """The same; ``None`` where there is no kernel for it, or it does not work."""
        C, widths = len(project_CD), [len(weight) for weight, _ in layers]
        if not widths or any(width != C for width in widths[:-1]):
            return None
        if not _works(C, len(widths) - 1, widths[-1], project_CD.dtype):
            return None
        return PlanarMLP(project_CD, rows_RC, cols_WC, layers)

    def run(
        self,
        feat_PD: Tensor,
        lines: Lines,
        out_OQ: Tensor,
        wanted: int = -1,
        class_Q: Tensor | None = None,
    ) -> None:
        """Writes the MLP's output at queries.

        Args:
            feat_PD: features.
            lines: where the queries are.
            out_OQ: float32; other queries' columns stay as they are.
            wanted: the class of the queries that it is for; ``-1`` for all.
            class_Q: all queries' classes, uint8.
        """
        if class_Q is None:
            class_Q = torch.zeros(1, dtype=torch.uint8)
        proj_PF = linear(feat_PD.to(self._project_FD.dtype), self._project_FD).float()
        places = (lines.pixel_L, lines.row_L, lines.pixel_W)
        arrays = (
            class_Q.flatten().numpy(), words(proj_PF), self._rows, self._cols,
            *(place.numpy() for place in places), out_OQ.view(-1).numpy(),
        )  # fmt: skip
        step = self._stride if lines.by_column else 0
        run_in_threads(
            loaded_kernels().mlp, len(lines.pixel_L), arrays, wanted, step, self._stride,
            *self._layers, *self._tiles,
        )  # fmt: skip


def _packed(weight_tC: Tensor, pair: int) -> Tensor:
    """The weights of a tile's outputs, in the order in which the kernel reads them."""
    filled = F.pad(weight_tC, (0, -weight_tC.shape[1] % pair))
    return filled.view(len(weight_tC), -1, pair).transpose(0, 1).flatten()


@cache
def _works(C: int, hidden: int, outputs: int, dtype: torch.dtype) -> bool:
    """Whether there is a kernel for so many layers, and it gives what PyTorch gives."""
    if not multiplies(dtype) or loaded_kernels().mlp_tiles(C, outputs) is None:
        return False
    draw = torch.Generator().manual_seed(0)
    D, L, W = 5, 3, 41  # several blocks, and one that is not full
    shapes = [(C, C)] * hidden + [(outputs, C)]
    layers = [(_drawn(draw, N, K) / K**0.5, _drawn(draw, N)) for N, K in shapes]
    project_CD, feat_PD = _drawn(draw, C, D), _drawn(draw, W, D)
    rows_LC, cols_WC = _drawn(draw, L, C), _drawn(draw, W, C)
    class_LW = torch.randint(0, 2, (L, W), generator=draw).to(torch.uint8)
    lines = Lines(torch.zeros(L, dtype=torch.int64), torch.arange(L), torch.arange(W), True)

    def compare() -> tuple[Tensor, Tensor]:
        cast = [(weight.to(dtype), bias.to(dtype)) for weight, bias in layers]
        mlp = PlanarMLP(project_CD.to(dtype), rows_LC, cols_WC, cast)
        found_OQ = torch.zeros(outputs, L * W)
        mlp.run(feat_PD, lines, found_OQ, 1, class_LW)
        x_LWC = feat_PD @ project_CD.T + rows_LC[:, None] + cols_WC
        for weight, bias in layers:
            x_LWC = F.linear(x_LWC.relu(), weight, bias)
        expected_OQ = x_LWC.flatten(0, 1).T * class_LW.flatten()
        return found_OQ.to(dtype), expected_OQ.to(dtype)

    return kernels_work(compare)


def _drawn(draw: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=draw) - 0.5

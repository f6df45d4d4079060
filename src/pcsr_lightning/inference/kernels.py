"""Gather - run - scatter: each pixel-level MLP on the queries that want it, a strip at a time.

At integer scales the result is taken apart into its ``S = sy * sx`` sub-positions: those HR
pixels that lie alike within their LR pixel. Each sub-position is a picture of the LR size in which
every query asks its own pixel, so there are no coordinates, and the offset's part of the first
layer is one constant vector. This *subpixel-major* order is kept until the result is put together.

Legend: B batch, r w LR rows and columns of a strip, P = B * r * w its LR pixels, n W its HR rows
and columns, D feature channels, M classes, S sub-positions, K queries of one class, C width of a
layer, Q queries of a strip in subpixel-major order, O outputs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference import planar_refine
from pcsr_lightning.inference.checks import check_finite
from pcsr_lightning.inference.linear import linear, linear_relu
from pcsr_lightning.inference.planar_mlp import Lines, PlanarMLP
from pcsr_lightning.networks import PCSR, BilinearOnly, PixelMLP, QueryGrid
from pcsr_lightning.networks.modes import is_tracing
from pcsr_lightning.routing.refine import refine

BLOCK_VALUES = {"cpu": 2**18, "cuda": 2**27}
"""Values of a layer that are in work together: on a CPU they stay in its cache."""
QUANTUM = 512
"""The last block of queries is filled up to a multiple of this: processors and libraries prepare
themselves again for every new shape, which takes longer than a few more rows."""


@dataclass(frozen=True)
class Strip:
    """LR rows ``[top, bottom)`` of a picture and the HR rows that ask them."""

    top: int
    bottom: int
    hr_top: int
    hr_bottom: int


class MLPKernel:
    """An upsampler's or the classifier's weights, made ready for many queries.

    Args:
        mlp: its weights are copied.
        grid: the whole picture's queries.
        dtype: of the arithmetic.
        by_position: at integer scales, whether one term for each sub-position is kept instead of
            one for each row and column.
        name: what to call it in an error.

    Raises:
        PCSRError: a weight is NaN or infinite.
    """

    def __init__(
        self,
        mlp: PixelMLP,
        grid: QueryGrid,
        dtype: torch.dtype,
        by_position: bool,
        name: str,
    ) -> None:
        rows_HC, cols_WC = mlp.offset_terms(grid)
        bias_C = mlp.project.bias.detach()
        self.project_CD = mlp.project.weight.detach().to(dtype)
        layers = [layer for layer in mlp.tail if isinstance(layer, torch.nn.Linear)]
        self.layers = [(x.weight.detach().to(dtype), x.bias.detach().to(dtype)) for x in layers]
        self._terms: tuple[Tensor, Tensor | None]  # by line, and by column
        if by_position and grid.integer_scale is not None:
            sy, sx = grid.integer_scale
            table_SC = (rows_HC[:sy, None] + cols_WC[:sx]).flatten(0, 1) + bias_C
            self.table_SC = table_SC.detach().to(dtype)
            self._terms = self.table_SC, None
        else:
            self.rows_HC = (rows_HC + bias_C).detach().to(dtype)
            self.cols_WC = cols_WC.detach().to(dtype)
            self._terms = self.rows_HC, self.cols_WC
        # A fused ReLU turns NaN into 0, so that it would not be seen in the result.
        for part in mlp.parameters():
            check_finite(part.detach(), f"the weights of {name}")

    @cached_property
    def planar(self) -> PlanarMLP | None:
        """The same in a kernel that numba compiles, where there is one."""
        return PlanarMLP.of(self.project_CD, *self._terms, self.layers)

    def project(self, feat_PD: Tensor) -> Tensor:
        """The first layer's share of the LR pixels, ``(P, C)``, without bias."""
        return linear(feat_PD, self.project_CD)

    def project_planar(self, feat_PD: Tensor) -> Tensor:
        """The same as ``(C, P)``."""
        return torch.mm(self.project_CD, feat_PD.to(self.project_CD).t())

    def finish(self, first_KC: Tensor) -> Tensor:
        """All that follows the first layer, ``(O, K)``; overwrites its input."""
        if not self.layers:
            return first_KC.t()
        x = first_KC.clamp_min_(0)
        for weight, bias in self.layers[:-1]:
            x = linear_relu(x, weight, bias)
        weight, bias = self.layers[-1]
        # So few outputs are made several times as fast as rows of a planar result.
        return torch.addmm(bias[:, None], weight, x.t())

    def finish_planar(self, first_CK: Tensor) -> Tensor:
        """The same from ``(C, K)``: faster for the narrow layers of a classifier."""
        x = first_CK
        for weight, bias in self.layers:
            x = torch.addmm(bias[:, None], weight, x.clamp_min_(0))
        return x


class QueryKernels(ABC):
    """A model's upsamplers and classifier at work on one picture size.

    Args:
        model: its weights are copied; later changes to them are not seen.
        grid: the picture's queries.
        dtype: of the arithmetic.
        planar: whether MLPs run in kernels that numba compiles, where there are any.
    """

    by_position: ClassVar[bool] = False

    def __init__(
        self, model: PCSR, grid: QueryGrid, dtype: torch.dtype, planar: bool = False
    ) -> None:
        self.grid, self.dtype, self.num_classes = grid, dtype, model.num_classes
        self._planar = planar
        mlps = [model.upsampler(j) for j in range(self.num_classes)]
        self._upsamplers = [mlp for mlp in mlps if not isinstance(mlp, BilinearOnly)]
        self._ready: dict[int, MLPKernel] = {}
        self._classifier = model.classifier
        self._classifier_kernel: MLPKernel | None = None

    @staticmethod
    def of(model: PCSR, grid: QueryGrid, dtype: torch.dtype, planar: bool = False) -> QueryKernels:
        """Those that fit the scale."""
        kind = FractionalScale if grid.integer_scale is None else IntegerScale
        return kind(model, grid, dtype, planar)

    def upsampler(self, j: int) -> MLPKernel:
        """``U_j``; made ready when first asked for."""
        if j not in self._ready:
            self._ready[j] = self._kernel(self._upsamplers[j], f"upsampler {j}", self.dtype)
        return self._ready[j]

    @property
    def classifier(self) -> MLPKernel:
        """``C``.

        Raises:
            ConfigError: the network has none.
        """
        if self._classifier is None:
            raise ConfigError("this network has one upsampler and no classifier: nothing to route")
        if self._classifier_kernel is None:
            cpu = self._classifier.project.weight.device.type == "cpu"
            # So narrow layers take a CPU a third less time in float32, and decide more exactly.
            dtype = torch.float32 if cpu and self.dtype == torch.bfloat16 else self.dtype
            self._classifier_kernel = self._kernel(self._classifier, "the classifier", dtype)
        return self._classifier_kernel

    def _kernel(self, mlp: PixelMLP, name: str, dtype: torch.dtype) -> MLPKernel:
        return MLPKernel(mlp, self.grid, dtype, self.by_position, name)

    def _new_residual(self, feat_PD: Tensor, queries: int) -> Tensor:
        """Room for ``(3, Q)`` float32; 0 where a free class has no upsampler to fill it."""
        free = len(self._upsamplers) < self.num_classes
        return (feat_PD.new_zeros if free else feat_PD.new_empty)(3, queries, dtype=torch.float32)

    def logits(self, feat_BrwD: Tensor, strip: Strip) -> Tensor:
        """The classifier's output at a strip's queries, subpixel-major: ``(B, M, Q)``."""
        mlp = self.classifier
        if self._planar and mlp.planar is not None:
            feat_PD, lines = feat_BrwD.flatten(0, 2), self._lines(feat_BrwD, strip)
            Q = len(lines.pixel_L) * len(lines.pixel_W)
            out_MQ = feat_PD.new_empty(self.num_classes, Q, dtype=torch.float32)
            mlp.planar.run(feat_PD, lines, out_MQ)
        else:
            out_MQ = self._plain_logits(mlp, feat_BrwD, strip)
        return self._by_picture(out_MQ, len(feat_BrwD))

    def residual(
        self, feat_BrwD: Tensor, strip: Strip, class_BQ: Tensor, every_class: bool = False
    ) -> Tensor:
        """Each query's residual by its class's upsampler, subpixel-major: ``(B, 3, Q)``.

        Args:
            feat_BrwD: the strip's features.
            strip: which rows they are.
            class_BQ: uint8.
            every_class: runs the first layer of classes without a pixel here, too, so that a
                picture's cost does not depend on how it is cut.
        """
        feat_BrwD = feat_BrwD.contiguous()  # one copy for all classes
        feat_PD, class_Q = feat_BrwD.flatten(0, 2), self._across_pictures(class_BQ)
        out_3Q = self._new_residual(feat_PD, len(class_Q))
        lines = self._lines(feat_BrwD, strip) if self._planar else None
        for j in range(len(self._upsamplers)):
            wanted_Q = class_Q == j
            if not (every_class or bool(wanted_Q.any())):
                continue
            mlp = self.upsampler(j)
            if lines is not None and mlp.planar is not None:
                mlp.planar.run(feat_PD, lines, out_3Q, j, class_Q)
            else:
                self._gather_and_scatter(mlp, feat_BrwD, strip, wanted_Q, out_3Q)
        return self._by_picture(out_3Q, len(feat_BrwD))

    @abstractmethod
    def _lines(self, feat_BrwD: Tensor, strip: Strip) -> Lines:
        """The queries of a strip of all pictures, in the order of ``Q``."""

    @abstractmethod
    def _plain_logits(self, mlp: MLPKernel, feat_BrwD: Tensor, strip: Strip) -> Tensor:
        """The classifier's output by PyTorch's operators, ``(M, Q)``, of all pictures."""

    @abstractmethod
    def _gather_and_scatter(
        self, mlp: MLPKernel, feat_BrwD: Tensor, strip: Strip, wanted_Q: Tensor, out_3Q: Tensor
    ) -> None:
        """An upsampler's output by PyTorch's operators where it is wanted, for all pictures."""

    @abstractmethod
    def _across_pictures(self, values_BQ: Tensor) -> Tensor:
        """Values of all pictures in the order that computing has, ``(Q,)``."""

    @abstractmethod
    def _by_picture(self, values_cQ: Tensor, B: int) -> Tensor:
        """The inverse, ``(c, Q)`` to ``(B, c, Q)``."""

    def refine(self, sr_B3nW: Tensor, class_BnW: Tensor, bits: int | None = None) -> Tensor:
        """Rows smoothed at the seams between classes (Sec. 3.4), ``(B, 3, n, W)``.

        Args:
            sr_B3nW: float32.
            class_BnW: their classes.
            bits: rows may come out as integers of so many bits.
        """
        run = planar_refine.refine if self._planar else refine
        return run(sr_B3nW, class_BnW, self.num_classes)

    @abstractmethod
    def to_rows(self, values_BcQ: Tensor, strip: Strip) -> Tensor:
        """From subpixel-major order to the picture's: ``(B, c, n, W)``."""

    @abstractmethod
    def to_subpixel_major(self, rows_BcnW: Tensor, strip: Strip) -> Tensor:
        """From the picture's order to subpixel-major order: ``(B, c, Q)``."""


class IntegerScale(QueryKernels):
    """At integer scales: sub-position by sub-position."""

    by_position: ClassVar[bool] = True

    @property
    def _scale(self) -> tuple[int, int]:
        assert self.grid.integer_scale is not None
        return self.grid.integer_scale

    def _lines(self, feat_BrwD: Tensor, strip: Strip) -> Lines:
        B, r, w, _ = feat_BrwD.shape
        row_L = torch.arange(math.prod(self._scale) * B * r)
        return Lines(row_L % (B * r) * w, row_L // (B * r), torch.arange(w), by_column=False)

    def _plain_logits(self, mlp: MLPKernel, feat_BrwD: Tensor, strip: Strip) -> Tensor:
        proj_CP = mlp.project_planar(feat_BrwD.flatten(0, 2))
        S, P = len(mlp.table_SC), proj_CP.shape[1]
        out_MSP = proj_CP.new_empty(self.num_classes, S, P, dtype=torch.float32)
        for s, term_C in enumerate(mlp.table_SC):
            out_MSP[:, s] = mlp.finish_planar(proj_CP + term_C[:, None])
        return out_MSP.flatten(1)

    def _gather_and_scatter(
        self, mlp: MLPKernel, feat_BrwD: Tensor, strip: Strip, wanted_Q: Tensor, out_3Q: Tensor
    ) -> None:
        proj_PC = mlp.project(feat_BrwD.flatten(0, 2))
        P = len(proj_PC)
        place, pixel = wanted_Q.view(-1, P).nonzero().unbind(dim=1)
        for part in _blocks(len(place), proj_PC):
            s, p = place[part], pixel[part]
            first_KC = proj_PC.index_select(0, p)
            first_KC += mlp.table_SC.index_select(0, s)
            out_3Q.index_copy_(1, s * P + p, _finish(mlp, first_KC))

    def _across_pictures(self, values_BQ: Tensor) -> Tensor:
        B, S = len(values_BQ), math.prod(self._scale)
        return values_BQ.view(B, S, -1).transpose(0, 1).flatten()

    def _by_picture(self, values_cQ: Tensor, B: int) -> Tensor:
        c, S = len(values_cQ), math.prod(self._scale)
        return values_cQ.view(c, S, B, -1).permute(2, 0, 1, 3).reshape(B, c, -1)

    def to_rows(self, values_BcQ: Tensor, strip: Strip) -> Tensor:
        (sy, sx), r = self._scale, strip.bottom - strip.top
        B, c, _ = values_BcQ.shape
        w = self.grid.lr_size[1]
        x = values_BcQ.view(B, c, sy, sx, r, w).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(B, c, r * sy, w * sx)

    def to_subpixel_major(self, rows_BcnW: Tensor, strip: Strip) -> Tensor:
        (sy, sx), r = self._scale, strip.bottom - strip.top
        B, c = rows_BcnW.shape[:2]
        w = self.grid.lr_size[1]
        return rows_BcnW.reshape(B, c, r, sy, w, sx).permute(0, 1, 3, 5, 2, 4).reshape(B, c, -1)


class FractionalScale(QueryKernels):
    """At any scale: every query looks up its LR pixel; the picture's own order."""

    def _near(self, strip: Strip) -> Tensor:
        """The strip's LR row of each of its HR rows."""
        return self.grid.rows_H[strip.hr_top : strip.hr_bottom] - strip.top

    def _lines(self, feat_BrwD: Tensor, strip: Strip) -> Lines:
        B, r, w, _ = feat_BrwD.shape
        top_B1 = torch.arange(B)[:, None] * r
        row_L = torch.arange(strip.hr_top, strip.hr_bottom).repeat(B)
        pixel_L = (top_B1 + self._near(strip)).flatten() * w
        return Lines(pixel_L, row_L, self.grid.cols_W, by_column=True)

    def _plain_logits(self, mlp: MLPKernel, feat_BrwD: Tensor, strip: Strip) -> Tensor:
        B, r, w, D = feat_BrwD.shape
        M, W = self.num_classes, self.grid.size[1]
        proj_CBrw = mlp.project_planar(feat_BrwD.reshape(-1, D)).view(-1, B, r, w)
        wide_CBrW = proj_CBrw.index_select(3, self.grid.cols_W) + mlp.cols_WC.t()[:, None, None]
        near = self._near(strip)
        term_CBn1 = mlp.rows_HC[strip.hr_top : strip.hr_bottom].t()[:, None, :, None]
        out_MBnW = proj_CBrw.new_empty(M, B, len(near), W, dtype=torch.float32)
        for rows in _blocks(len(near), proj_CBrw.new_empty(0, B * W * len(proj_CBrw))):
            first_CBnW = wide_CBrW.index_select(2, near[rows]) + term_CBn1[:, :, rows]
            out_MQ = mlp.finish_planar(first_CBnW.flatten(1))
            out_MBnW[:, :, rows] = out_MQ.view(M, B, -1, W)
        return out_MBnW.flatten(1)

    def _gather_and_scatter(
        self, mlp: MLPKernel, feat_BrwD: Tensor, strip: Strip, wanted_Q: Tensor, out_3Q: Tensor
    ) -> None:
        B, r, w, D = feat_BrwD.shape
        n, W = strip.hr_bottom - strip.hr_top, self.grid.size[1]
        proj_PC = mlp.project(feat_BrwD.reshape(-1, D))
        picture, row, column = wanted_Q.view(B, n, W).nonzero().unbind(dim=1)
        for part in _blocks(len(row), proj_PC):
            b, i, c = picture[part], row[part], column[part]
            near = self.grid.rows_H[i + strip.hr_top] - strip.top
            pixel = (b * r + near) * w + self.grid.cols_W[c]
            first_KC = proj_PC.index_select(0, pixel)
            first_KC += mlp.rows_HC.index_select(0, i + strip.hr_top)
            first_KC += mlp.cols_WC.index_select(0, c)
            out_3Q.index_copy_(1, (b * n + i) * W + c, _finish(mlp, first_KC))

    def _across_pictures(self, values_BQ: Tensor) -> Tensor:
        return values_BQ.flatten()

    def _by_picture(self, values_cQ: Tensor, B: int) -> Tensor:
        return values_cQ.view(len(values_cQ), B, -1).transpose(0, 1)

    def to_rows(self, values_BcQ: Tensor, strip: Strip) -> Tensor:
        return values_BcQ.view(*values_BcQ.shape[:2], -1, self.grid.size[1])

    def to_subpixel_major(self, rows_BcnW: Tensor, strip: Strip) -> Tensor:
        return rows_BcnW.flatten(2)


def _blocks(n: int, rows_NC: Tensor) -> Iterator[slice]:
    """``n`` rows as wide as those, in blocks that suit the device; single rows at least."""
    values = BLOCK_VALUES.get(rows_NC.device.type, BLOCK_VALUES["cuda"])
    if rows_NC.device.type == "cpu":
        values *= min(torch.get_num_threads(), 4)  # cores have caches of their own
    step = max(1, values // max(1, rows_NC.shape[1]))
    step = step if step < QUANTUM else step // QUANTUM * QUANTUM
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def _finish(mlp: MLPKernel, first_KC: Tensor) -> Tensor:
    """The rest of the network at ``K`` queries: ``(3, K)``, float32."""
    K = len(first_KC)
    filled = 0 if is_tracing() else -K % QUANTUM
    if filled:
        first_KC = F.pad(first_KC, (0, 0, 0, filled))
    return mlp.finish(first_KC)[:, :K].float()

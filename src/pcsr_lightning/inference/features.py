"""Where strips of LR features come from: streamed row by row, tile by tile, or all at once.

Legend: B batch, h w LR size, r rows of a strip, D feature channels.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from pcsr_lightning.arithmetic import float32_products
from pcsr_lightning.errors import single_line
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.input_rows import InputRows, as_input
from pcsr_lightning.inference.prepared import Prepared
from pcsr_lightning.networks import evaluating, uncompiled
from pcsr_lightning.networks.cuda_graph import GraphedByShape
from pcsr_lightning.networks.modes import is_tracing
from pcsr_lightning.streaming import (
    NotStreamable,
    RowPlan,
    RowStream,
    WholePlan,
    is_planar,
    kernels_pay,
    multiplies,
    plan_rows,
    stream_values,
    with_planar_kernels,
)

_log = logging.getLogger(__name__)

STRIP_PIXELS = 15_000
"""LR pixels of a strip on a CPU: few enough to stay in its cache, many enough to keep it busy.
Measured by ``benchmarks/strips.py``."""
STRIP_PIXELS_SHARED = 22_000
"""The same with several threads, which wait for each other at the end of every step."""
STRIP_PIXELS_GPU = 2**19
NUMBA_PIXELS = 2**20
"""LR pixels from which on loading numba, half a second, is less than its upsamplers save."""


class FeatureRows(ABC):
    """A picture's features, a strip after another.

    Attributes:
        height: ``h``.
        reach: rows around a strip that have to be computed again for every strip.
    """

    height: int
    reach: int = 0

    @abstractmethod
    def strips(self, rows: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Strips of about ``rows`` rows from row ``start`` on, in order.

        Each is its first row and its features ``(B, r, w, D)``, valid until the next is asked for.
        For a network that upscales, both count rows of its output; ``rows`` and ``start`` never do.
        """

    @abstractmethod
    def memory(self, rows: int) -> int:
        """The bytes that strips of so many rows take while they are made, about."""


class StreamedRows(FeatureRows):
    """One picture through a :class:`RowStream`: nothing is computed twice.

    Args:
        plan: the network.
        x: its input, ``(1, 3, h, w)``.
        dtype: of the arithmetic.
    """

    def __init__(self, plan: RowPlan, x: Tensor | InputRows, dtype: torch.dtype) -> None:
        self.plan, self.dtype, self._x = plan, dtype, as_input(x)
        self.height = int(self._x.shape[2])

    def strips(self, rows: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        # A stream that begins within a picture gives its first rows as if the picture began there.
        begin = max(0, start - self.plan.halo)
        h, w = self.height, int(self._x.shape[3])
        stream = RowStream(self.plan, w, rows, self.dtype, self._x.device)
        g = self.plan.upscale_factor
        made = begin * g
        for top in range(begin, h, rows):
            x_rw3 = self._x.rows(top, top + rows)[0].permute(1, 2, 0).to(self.dtype)
            for feat_rwD in stream.push(x_rw3, last=top + rows >= h):
                skip = max(0, start * g - made)
                if len(feat_rwD) > skip:
                    yield made + skip, feat_rwD[None, skip:]
                made += len(feat_rwD)

    def memory(self, rows: int) -> int:
        w = int(self._x.shape[3])
        return stream_values(self.plan, w, rows) * self.dtype.itemsize


class TiledRows(FeatureRows):
    """Any network with a known halo, on tiles that overlap by it.

    Args:
        module: ``(B, 3, h, w) -> (B, D, h, w)``, in evaluation mode.
        halo: rows above and below that can change a feature; ``None`` for the whole picture.
        x: its input, ``(B, 3, h, w)``.
        dtype: of the arithmetic.
    """

    def __init__(
        self, module: nn.Module, halo: int | None, x: Tensor | InputRows, dtype: torch.dtype
    ) -> None:
        self.module, self._x, self.dtype = module, as_input(x), dtype
        self.height = self._x.shape[2]
        self.halo = self.height if halo is None else halo
        self.reach = self.halo if self.halo < self.height else 0  # else there is one tile only

    def strips(self, rows: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        h, halo = self.height, self.halo
        if halo >= h:
            whole_BhwD = self._run(self._x.rows(0, h))
            g = whole_BhwD.shape[1] // h
            for top in range(start, h, rows):
                yield top * g, whole_BhwD[:, top * g : (top + rows) * g]
            return
        for top in range(start, h, rows):
            first, last = max(0, top - halo), min(h, top + rows + halo)
            tile_BrwD = self._run(self._x.rows(first, last))
            g = tile_BrwD.shape[1] // (last - first)
            yield top * g, tile_BrwD[:, (top - first) * g : (top - first + rows) * g]

    def _run(self, x_B3rw: Tensor) -> Tensor:
        weight = next(self.module.parameters(), x_B3rw)
        x = x_B3rw.to(weight.dtype, memory_format=torch.channels_last)
        # A model in a precision of its own needs no casts.
        casts = self.dtype != weight.dtype
        with evaluating(self.module), torch.autocast(x.device.type, self.dtype, enabled=casts):
            feat_BDrw: Tensor = self.module(x)
        return feat_BDrw.permute(0, 2, 3, 1).to(self.dtype)

    def memory(self, rows: int) -> int:
        B, _, h, w = self._x.shape
        return B * w * min(h, rows + 2 * self.halo) * VALUES * self.dtype.itemsize


class PlannedTiles(TiledRows):
    """A planned network on large tiles, or on whole pictures, the way that suits a GPU.

    Args:
        plan: the network.
        run: runs it.
        x: its input, ``(B, 3, h, w)``.
        dtype: of the arithmetic.
    """

    def __init__(
        self, plan: RowPlan, run: GraphedByShape, x: Tensor | InputRows, dtype: torch.dtype
    ) -> None:
        super().__init__(nn.Identity(), plan.halo, x, dtype)
        self._planned = run

    def _run(self, x_B3rw: Tensor) -> Tensor:
        return self._planned(x_B3rw.permute(0, 2, 3, 1).to(self.dtype))


class KeptRows(FeatureRows):
    """Features that were computed before.

    Args:
        feat_BhwD: all of them.
    """

    def __init__(self, feat_BhwD: Tensor) -> None:
        self.feat_BhwD = feat_BhwD
        self.height = feat_BhwD.shape[1]

    def strips(self, rows: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        for top in range(start, self.height, rows):
            yield top, self.feat_BhwD[:, top : top + rows]

    def memory(self, rows: int) -> int:
        return 0


def feature_rows(
    module: nn.Module,
    halo: int | None,
    x: Tensor | InputRows,
    dtype: torch.dtype,
    fused: bool = False,
    planar: bool = False,
) -> FeatureRows:
    """The fastest exact way through ``module`` for this picture.

    Args:
        module: a backbone, or an original model without its mean.
        halo: see :class:`TiledRows`.
        x: mean-free pictures, ``(B, 3, h, w)``.
        dtype: of the arithmetic.
        fused: see :class:`~pcsr_lightning.inference.execution.Execution`.
        planar: whether numba's kernels are used, see :func:`uses_numba`.
    """
    if fused:
        planned = _WHOLE.get(module, (dtype, "whole"), lambda: _make_whole(module, dtype))
        if planned is not None:
            return PlannedTiles(*planned, x, dtype)
    elif x.device.type == "cpu" and len(x) == 1:
        plan = _plan(module, dtype, planar)
        if plan is not None:
            return StreamedRows(plan, x, dtype)
    return TiledRows(module, halo, x, dtype)


def strip_rows(
    execution: Execution,
    features: FeatureRows,
    x: Tensor | InputRows,
    area: float,
    kept: int = 0,
) -> int:
    """How many LR rows to work on at a time.

    Args:
        execution: may say so, or how much memory there is.
        features: where they come from.
        x: the pictures, ``(B, 3, h, w)``.
        area: HR pixels for each LR pixel.
        kept: bytes of the memory that are taken already.
    """
    B, _, h, w = x.shape
    if execution.tile_rows is not None:
        return min(h, execution.tile_rows)
    # Where strips overlap, low ones would do most of their work twice.
    if x.device.type != "cpu":
        pixels = STRIP_PIXELS_GPU
    else:
        pixels = STRIP_PIXELS if torch.get_num_threads() == 1 else STRIP_PIXELS_SHARED
    rows = max(1, min(h, max(pixels // (B * w), 2 * features.reach)))
    if execution.max_memory is None:
        return rows
    free = execution.max_memory - kept

    def takes(rows: int) -> int:
        return int(MARGIN * (features.memory(rows) + B * w * rows * area * BYTES_HR))

    # The most rows that fit; a single one in any case.
    rows = max(1, bisect_right(range(1, rows + 1), free, key=takes))
    if takes(rows) > free:
        _log.warning(
            "max_memory: even a single row at a time takes about %.1f MiB of working memory, more "
            "than the %.1f MiB allowed; continuing with it",
            takes(rows) / 2**20,
            execution.max_memory / 2**20,
        )
    return rows


MARGIN = 1.15
"""For what is not counted: libraries' scratch memory, and pieces that cannot be used again."""
BYTES_HR = 120
"""What an HR pixel in work takes besides the backbone, at most."""
VALUES = 800
"""How many numbers an LR pixel takes at a time in networks of which no more is known."""


class _Plans:
    """A network's steps; ``None`` if it cannot be streamed."""

    def __init__(self, plain: RowPlan | None) -> None:
        self.plain = plain

    @cached_property
    def planar(self) -> RowPlan | None:
        """The same with numba's kernels, where they can be used."""
        return None if self.plain is None else with_planar_kernels(self.plain)


_PLANS: Prepared[_Plans] = Prepared()  # tracing takes longer than a small picture


def _plan(module: nn.Module, dtype: torch.dtype, planar: bool) -> RowPlan | None:
    """The network's steps, ``None`` if it cannot be streamed; made again if weights changed."""
    plans = _PLANS.get(module, dtype, lambda: _Plans(_make_plan(module, dtype)))
    return plans.planar if planar else plans.plain


def uses_numba(
    backbone: nn.Module, execution: Execution, lr_pixels: int = 0, pictures: int = 1
) -> bool:
    """Whether kernels that numba compiles are used for a picture.

    Args:
        backbone: on its device.
        execution: may say so.
        lr_pixels: of all pictures that are computed together; 0 stands for small ones.
        pictures: how many these are; networks do not stream several.
    """
    weight = next(backbone.parameters(), None)
    if weight is None or weight.device.type != "cpu" or is_tracing():  # a trace shows PyTorch's own
        return False
    if execution.is_fused(weight.device) or execution.planar is False or not kernels_pay():
        return False
    dtype = execution.dtype(backbone)
    if execution.planar or lr_pixels >= NUMBA_PIXELS:
        return multiplies(dtype)
    plan = _plan(backbone, dtype, planar=True) if pictures == 1 else None
    return plan is not None and is_planar(plan)


_WHOLE: Prepared[tuple[RowPlan, GraphedByShape] | None] = Prepared()


def _make_whole(module: nn.Module, dtype: torch.dtype) -> tuple[RowPlan, GraphedByShape] | None:
    """The network planned for whole pictures, if that gives what it gives itself."""
    plan = _make_plan(module, dtype)
    if plan is None:
        return None
    weight = next(module.parameters())
    x_1hw3 = torch.rand(1, 9, 11, 3, generator=torch.Generator().manual_seed(0)).to(weight)
    try:
        whole = WholePlan(plan)
        with (
            float32_products(weight.device.type),
            evaluating(module),
            uncompiled(module) as plain,
        ):
            found = whole(x_1hw3.to(dtype)).float()
            expected = plain(x_1hw3.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).float()
        error = float((found - expected).abs().max() / expected.abs().max())
    except (RuntimeError, AssertionError) as failure:
        reason = f"{type(failure).__name__}: {single_line(str(failure))[:200]}"
        _log.warning("%s is not planned for a GPU: %s", type(module).__name__, reason)
        return None
    if not error <= (0.1 if dtype == torch.bfloat16 else 1e-3):
        _log.warning("%s is not planned for a GPU: error %.1e", type(module).__name__, error)
        return None
    return plan, GraphedByShape(whole)


def _make_plan(module: nn.Module, dtype: torch.dtype) -> RowPlan | None:
    weight = next(module.parameters(), torch.empty(0))
    try:
        with (
            float32_products(weight.device.type),
            evaluating(module),
            uncompiled(module) as plain,
        ):
            return plan_rows(plain, dtype)
    except NotStreamable as error:
        _log.info("%s cannot be streamed: %s", type(module).__name__, error)
        return None

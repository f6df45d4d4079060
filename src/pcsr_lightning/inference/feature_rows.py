"""Where strips of LR features come from: streamed row by row, tile by tile, or all at once.

Legend: B batch, h w LR size, r rows of a strip, D feature channels.
"""

from __future__ import annotations

import logging
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.row_plan import NotStreamable, RowPlan, plan_rows
from pcsr_lightning.inference.row_stream import RowStream
from pcsr_lightning.networks import evaluating

_log = logging.getLogger(__name__)

STRIP_PIXELS = 10_000
"""LR pixels of a strip on a CPU: few enough to stay in its cache, many enough to keep it busy.
Measured by ``benchmarks/strips.py``."""
STRIP_PIXELS_GPU = 2**19


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
        For a network that enlarges, both count rows of its output; ``rows`` and ``start`` never do.
        """


class StreamedRows(FeatureRows):
    """One picture through a :class:`RowStream`: nothing is computed twice.

    Args:
        plan: the network.
        x_13hw: its input.
        dtype: of the arithmetic.
    """

    def __init__(self, plan: RowPlan, x_13hw: Tensor, dtype: torch.dtype) -> None:
        self.plan, self.dtype = plan, dtype
        self.x_hw3 = x_13hw[0].permute(1, 2, 0)
        self.height = len(self.x_hw3)

    def strips(self, rows: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        # A stream that begins within a picture gives its first rows as if the picture began there.
        begin = max(0, start - self.plan.reach)
        h, w, _ = self.x_hw3.shape
        stream = RowStream(self.plan, w, rows, 3, self.dtype, self.x_hw3.device)
        g = self.plan.growth
        made = begin * g
        for top in range(begin, h, rows):
            x_rw3 = self.x_hw3[top : top + rows].to(self.dtype)
            feat_rwD = stream.push(x_rw3, last=top + rows >= h)
            skip = max(0, start * g - made)
            if len(feat_rwD) > skip:
                yield made + skip, feat_rwD[None, skip:]
            made += len(feat_rwD)


class TiledRows(FeatureRows):
    """Any network with a known halo, on tiles that overlap by it.

    Args:
        module: ``(B, 3, h, w) -> (B, D, h, w)``, in evaluation mode.
        halo: rows above and below that can change a feature; ``None`` for the whole picture.
        x_B3hw: its input.
        dtype: of the arithmetic.
    """

    def __init__(
        self, module: nn.Module, halo: int | None, x_B3hw: Tensor, dtype: torch.dtype
    ) -> None:
        self.module, self.x_B3hw, self.dtype = module, x_B3hw, dtype
        self.height = x_B3hw.shape[2]
        self.reach = self.height if halo is None else halo

    def strips(self, rows: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        h, halo = self.height, self.reach
        if halo >= h:
            whole_BhwD = self._run(self.x_B3hw)
            g = whole_BhwD.shape[1] // h
            for top in range(start, h, rows):
                yield top * g, whole_BhwD[:, top * g : (top + rows) * g]
            return
        for top in range(start, h, rows):
            first, last = max(0, top - halo), min(h, top + rows + halo)
            tile_BrwD = self._run(self.x_B3hw[:, :, first:last])
            g = tile_BrwD.shape[1] // (last - first)
            yield top * g, tile_BrwD[:, (top - first) * g : (top - first + rows) * g]

    def _run(self, x_B3rw: Tensor) -> Tensor:
        x = x_B3rw.contiguous(memory_format=torch.channels_last)
        with (
            evaluating(self.module),
            torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32),
        ):
            feat_BDrw: Tensor = self.module(x)
        return feat_BDrw.permute(0, 2, 3, 1).to(self.dtype)


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


def feature_rows(
    module: nn.Module, halo: int | None, x_B3hw: Tensor, dtype: torch.dtype
) -> FeatureRows:
    """The fastest exact way through ``module`` for this picture.

    Args:
        module: a backbone, or an original model without its mean.
        halo: see :class:`TiledRows`.
        x_B3hw: mean-free pictures.
        dtype: of the arithmetic.
    """
    if x_B3hw.device.type == "cpu" and len(x_B3hw) == 1:
        plan = _plan(module, dtype)
        if plan is not None:
            return StreamedRows(plan, x_B3hw, dtype)
    return TiledRows(module, halo, x_B3hw, dtype)


def strip_rows(execution: Execution, x_B3hw: Tensor, reach: int, scale: float = 4.0) -> int:
    """How many LR rows to work on at a time.

    Args:
        execution: may say so, or how much memory there is.
        x_B3hw: the pictures.
        reach: see :class:`FeatureRows`.
        scale: the enlargement of area, squared.
    """
    B, _, h, w = x_B3hw.shape
    pixels = STRIP_PIXELS if x_B3hw.device.type == "cpu" else STRIP_PIXELS_GPU
    if execution.tile_rows is not None:
        return min(h, execution.tile_rows)
    if execution.max_memory is not None:
        pixels = min(pixels, int(execution.max_memory / (BYTES + BYTES_HR * scale**2)))
        return max(1, min(h, pixels // (B * w)))
    # Where strips overlap, low ones would do most of their work twice.
    return max(1, min(h, max(pixels // (B * w), 2 * reach)))


BYTES, BYTES_HR = 25_000, 120
"""What an LR pixel, and an HR pixel, in work takes: measured on CARN and SRResNet in fp32."""

_Plans = dict[torch.dtype, tuple[tuple[int, ...], RowPlan | None]]
# Tracing takes longer than a small picture; a plan goes with its network.
_KNOWN: weakref.WeakKeyDictionary[nn.Module, _Plans] = weakref.WeakKeyDictionary()


def _plan(module: nn.Module, dtype: torch.dtype) -> RowPlan | None:
    """The network's steps, ``None`` if it cannot be streamed; made again if weights changed."""
    weights = [*module.parameters(), *module.buffers()]
    if any(w.is_inference() for w in weights):
        return _make_plan(module, dtype)  # changes to such weights cannot be seen
    state = tuple(n for w in weights for n in (w.data_ptr(), w._version))
    plans = _KNOWN.setdefault(module, {})
    if dtype not in plans or plans[dtype][0] != state:
        plans[dtype] = (state, _make_plan(module, dtype))
    return plans[dtype][1]


def _make_plan(module: nn.Module, dtype: torch.dtype) -> RowPlan | None:
    try:
        return plan_rows(module, dtype)
    except NotStreamable as error:
        _log.debug("%s cannot be streamed: %s", type(module).__name__, error)
        return None

"""A picture upscaled without its result in memory: finished rows go to a callback.

Legend: h w LR size, H W HR size, M classes, n HR rows of a strip.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsr_lightning.inference.checks import check_picture, check_size
from pcsr_lightning.inference.engine import Progress
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.flops import Flops, model_macs
from pcsr_lightning.inference.input_rows import InputRows, PictureRows
from pcsr_lightning.inference.original_rows import run_original
from pcsr_lightning.inference.output_rows import INTEGER_TYPES, as_integers
from pcsr_lightning.inference.time_budget import TimedPictures, Timing
from pcsr_lightning.inference.upscaling import check_original, make_engine
from pcsr_lightning.networks import PCSR, Original, unwrapped
from pcsr_lightning.routing import RoutingConfig, make_policy

PictureSink = Callable[[Tensor, Tensor], None]
"""Takes the next rows, ``(3, n, W)`` integers, and their classes, ``(n, W)`` uint8."""


@dataclass(frozen=True)
class RowsDone:
    """What an upscaled picture cost.

    Attributes:
        flops: the cost.
        shares: the part of the pixels in each class, heaviest first.
        timing: how a time budget was kept, if there was one; without the time in ``sink``.
    """

    flops: Flops
    shares: tuple[float, ...]
    timing: Timing | None = None


def upscale_rows(
    model: PCSR | Original,
    picture: Tensor | PictureRows,
    size: tuple[int, int],
    sink: PictureSink,
    routing: RoutingConfig,
    execution: Execution,
    bits: int = 8,
    progress: Progress | None = None,
) -> RowsDone:
    """One picture, its rows handed over in order as they are finished; the same as ``upscale``'s.

    Memory does not grow with the height of the result. Adaptive and a budget look at the
    whole picture first: up to :data:`~pcsr_lightning.routing.scores.SCORE_BYTES` they keep 4 bytes
    for each HR pixel (a budget as many for each class of each LR pixel), then one; of larger
    pictures they keep counts (:mod:`pcsr_lightning.routing.histogram`), and the classifier runs
    twice.

    Args:
        model: on the picture's device, if it is a tensor.
        picture: RGB in [0, 1], ``(3, h, w)``, floating point; or what gives its rows.
        size: ``(H, W)``.
        sink: takes the rows. What it raises ends the work and comes out here.
        routing: which class each pixel takes.
        execution: precision and strips.
        bits: 8 or 16, of the integers.
        progress: as for ``upscale``.

    Raises:
        ConfigError: an argument out of range.
        PCSRError: the network gave NaN or infinite values.
    """
    model = unwrapped(model)
    image = _checked(picture, model.mean.device)
    lr_size = (int(image.shape[2]), int(image.shape[3]))
    size = check_size(lr_size, size)
    pairs = _Pairs(sink, bits)
    with torch.inference_mode():
        if isinstance(model, Original):
            check_original(model, lr_size, size, routing)
            flops = run_original(model, image, execution, pairs.one_class, progress)
            return RowsDone(flops, (1.0,))
        timed = TimedPictures(model, lr_size, size, routing, execution)
        policy, macs = make_policy(timed.routing, timed.macs), model_macs(model)
        engine = make_engine(model, image, size, execution, policy.needs_whole_picture)
        done = engine.run(policy, pairs.image, pairs.classes, progress, bits)
    timing = timed.finish(done.shares, pairs.sink_seconds)
    return RowsDone(done.flops(macs, lr_size[0] * lr_size[1], policy), done.shares, timing)


def _checked(picture: Tensor | PictureRows, device: torch.device) -> InputRows:
    if not isinstance(picture, Tensor):
        return InputRows(picture, device)
    check_picture(picture[None], device)
    return InputRows(picture[None].float())


class _Pairs:
    """Brings rows and their classes together: with refinement, classes come a row earlier."""

    def __init__(self, sink: PictureSink, bits: int) -> None:
        self._sink, self._bits, self.sink_seconds = sink, bits, 0.0
        self._waiting: Tensor | None = None

    def one_class(self, top: int, rows_13nW: Tensor) -> None:
        self.classes(top, torch.zeros_like(rows_13nW[:, 0], dtype=torch.uint8))
        self.image(top, rows_13nW)

    def classes(self, _: int, rows_1nW: Tensor) -> None:
        waiting, new = self._waiting, rows_1nW[0]
        self._waiting = new if waiting is None else torch.cat([waiting, new])

    def image(self, _: int, rows_13nW: Tensor) -> None:
        n = rows_13nW.shape[2]
        if n == 0:
            return
        assert self._waiting is not None
        class_nW, self._waiting = self._waiting[:n], self._waiting[n:].clone()
        rows_3nW = as_integers(rows_13nW[0], self._bits).to(INTEGER_TYPES[self._bits])
        start = time.perf_counter()
        self._sink(rows_3nW, class_nW)
        self.sink_seconds += time.perf_counter() - start

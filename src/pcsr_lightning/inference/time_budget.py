"""A budget in seconds: what the pictures of a call take, predicted and realised.

Legend: h w LR size, H W HR size, M classes, heaviest first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.flops import model_macs
from pcsr_lightning.inference.time_model import TimeModel, TimeModels
from pcsr_lightning.networks import PCSR
from pcsr_lightning.routing import RoutingConfig
from pcsr_lightning.routing.cost import PictureMacs
from pcsr_lightning.routing.rules.seconds import in_words
from pcsr_lightning.routing.scores import SCORE_BYTES

_log = logging.getLogger(__name__)

KEEP_BYTES = 2**29
"""Features up to this size are kept between the two passes of adaptive and budget; larger ones are
computed again."""
LEAST = 0.02
"""Seconds: what takes or should take less says nothing of how fast the machine is."""

clock = time.perf_counter


@dataclass(frozen=True)
class Timing:
    """How a time was kept; all in seconds.

    Attributes:
        asked: what was wanted.
        predicted: for the classes that the pixels were given.
        took: in the end.
        floor: the least that the model can do.
    """

    asked: float
    predicted: float
    took: float
    floor: float

    def __str__(self) -> str:
        asked, took = in_words(self.asked), in_words(self.took)
        if self.asked < self.floor:
            least = in_words(self.floor)
            return f"asked {asked}, the least this model can do is {least} here, took {took}"
        return f"asked {asked}, predicted {in_words(self.predicted)}, took {took}"


def feature_bytes(
    model: PCSR, lr_size: tuple[int, int], execution: Execution, batch: int = 1
) -> int:
    """What the features take that are kept between two passes; 0 if they are too many for that."""
    limit = KEEP_BYTES if execution.max_memory is None else execution.max_memory // 2
    channels, size = model.backbone.out_channels, execution.dtype(model).itemsize
    taken = batch * lr_size[0] * lr_size[1] * channels * size
    return taken if taken <= limit else 0


def times_of(
    model: PCSR,
    scale: tuple[float, float],
    execution: Execution,
    again: bool = False,
    lr_pixels: int = 0,
) -> TimeModel:
    """What is known of a model's times at a scale; measured if nothing is, or ``again``.

    ``lr_pixels`` are those of a picture: large ones may run in other kernels.
    """
    from pcsr_lightning.inference import measuring

    models = TimeModels(model, execution, lr_pixels)
    known = None if again else models.find(scale)
    if known is None:
        with models.measuring():
            known = None if again else models.find(scale)
            if known is None:
                _log.info("measuring how fast this machine is with this model, once")
                known = TimeModel(
                    **models.about, scale=scale, **measuring.measure(model, scale, models.execution)
                )
                models.keep(known)
    return known


class TimedPictures:
    """The pictures of one call: what they cost, and how long they take.

    The time begins here, once the machine has been measured if it has to be.

    Args:
        model: on its device.
        lr_size: ``(h, w)``.
        size: ``(H, W)``.
        routing: as asked for.
        execution: precision and strips.
        pictures: how many share the time.

    Attributes:
        macs: what one picture costs.
        routing: of one picture.
    """

    def __init__(
        self,
        model: PCSR,
        lr_size: tuple[int, int],
        size: tuple[int, int],
        routing: RoutingConfig,
        execution: Execution,
        pictures: int = 1,
    ) -> None:
        self._model, self._execution, self._pictures = model, execution, pictures
        self._lr_pixels = lr_size[0] * lr_size[1]
        self._asked, self._times = routing.value, None
        self.macs, self.routing = model_macs(model).of_picture(lr_size, size), routing
        if routing.rule.timed:
            assert routing.value is not None
            scale = (size[0] / lr_size[0], size[1] / lr_size[1])
            self._times = times_of(model, scale, execution, lr_pixels=self._lr_pixels)
            self.macs = _with_seconds(self._times, self.macs, model, lr_size, execution)
            self.routing = routing.replace(seconds=routing.value / pictures)
        self._start = self._now()

    def finish(self, shares_M: Sequence[float], elsewhere: float = 0.0) -> Timing | None:
        """How the time was kept; ``None`` for a rule that has none.

        Args:
            shares_M: of the pixels in each class.
            elsewhere: seconds that the caller's own code took.
        """
        seconds, times = self.macs.seconds, self._times
        if times is None or seconds is None:
            return None
        took = self._now() - self._start - elsewhere
        of_classes = sum(p * s for p, s in zip(shares_M, seconds.pixel_M, strict=True))
        predicted = self._pictures * (seconds.fixed + self.macs.pixels * of_classes)
        floor = self._pictures * (seconds.fixed + self.macs.pixels * seconds.pixel_M[-1])
        if min(took, predicted) > LEAST:
            observed = times.observed(took / predicted)
            changed = abs(observed.factor / times.factor - 1) > 0.01
            models = TimeModels(self._model, self._execution, self._lr_pixels)
            models.keep(observed, write=changed)
        assert self._asked is not None
        return Timing(self._asked, predicted, took, floor)

    def _now(self) -> float:
        if self._model.mean.is_cuda and self._times is not None:
            torch.cuda.synchronize(self._model.mean.device)
        return clock()


def _with_seconds(
    times: TimeModel,
    macs: PictureMacs,
    model: PCSR,
    lr_size: tuple[int, int],
    execution: Execution,
) -> PictureMacs:
    lr_pixels = lr_size[0] * lr_size[1]
    routed = model.num_classes > 1
    backbones = 2 if routed and not feature_bytes(model, lr_size, execution) else 1
    classifiers = 2 if 4 * lr_pixels * model.num_classes > SCORE_BYTES else 1
    seconds = times.of_picture(lr_pixels, macs.pixels, backbones, classifiers)
    return replace(macs, seconds=seconds)

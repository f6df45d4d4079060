"""A time for a whole picture, from its file to the result's: what is left of it for the network.

Python's start, loading the model and measuring the machine do not count.
"""

from __future__ import annotations

import io
import math
import statistics
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pcsr_lightning import images, inference
from pcsr_lightning.images import Picture
from pcsr_lightning.inference import Timing
from pcsr_lightning.inference.time_budget import LEAST
from pcsr_lightning.networks import PCSR
from pcsr_lightning.routing import RoutingConfig

_REMEMBERED = 5
_KNOWN: dict[tuple[str, int | None], list[float]] = {}
"""Seconds that the last results took to write, for each pixel, by suffix and quality."""


class PictureClock:
    """The time of one picture.

    Args:
        start: when it was begun.
        routing: with the time that was asked for.
        model: on its device.
        execution: precision and strips.
        lr_size: ``(h, w)``.
        size: ``(H, W)`` of the result.
        file: the suffix and quality of its file.
        pictures: 2 if its transparency is upscaled too.

    Attributes:
        routing: with the time that is left for the network, for each of ``pictures``.
        start: without what was measured here.
        writing: seconds in which rows were written.
    """

    def __init__(
        self,
        start: float,
        routing: RoutingConfig,
        model: PCSR,
        execution: inference.Execution,
        lr_size: tuple[int, int],
        size: tuple[int, int],
        file: tuple[str, int | None],
        pictures: int,
    ) -> None:
        read = time.perf_counter() - start
        scale = (size[0] / lr_size[0], size[1] / lr_size[1])
        inference.times_of(model, scale, execution, lr_pixels=lr_size[0] * lr_size[1])
        self._file, self._pixels = file, math.prod(size)
        writing = self._pixels * statistics.median(_writing(*file))
        self.start = time.perf_counter() - read
        assert routing.value is not None
        self._asked, self._around = routing.value, read + writing
        left = max(1e-6, routing.value - self._around) / pictures
        self.routing = routing.replace(seconds=left)
        self.writing = 0.0

    def finish(self, timings: Sequence[Timing | None], finished: float, closing: float) -> Timing:
        """How the time was kept.

        Args:
            timings: of the colours, and of the transparency if it was upscaled.
            finished: when the file was there.
            closing: seconds from the last row to the finished file.
        """
        known, wrote = _writing(*self._file), self.writing + closing
        if wrote > LEAST:
            known[:] = [*known, wrote / self._pixels][-_REMEMBERED:]
        parts = [each for each in timings if each is not None]
        return Timing(
            self._asked,
            self._around + sum(each.predicted for each in parts),
            finished - self.start,
            self._around + sum(each.floor for each in parts),
        )


def _writing(suffix: str, quality: int | None) -> list[float]:
    """What results took to write, by the pixel; before the first one, what a photograph takes."""
    key = (suffix, quality)
    if key not in _KNOWN:
        photo = _photograph()
        header, file = images.outline(photo, (photo.rgb.shape[1], photo.rgb.shape[2])), io.BytesIO()
        start = time.perf_counter()
        with images.encoded_by_rows(header, suffix, file, quality) as put:
            put((photo.rgb * 255).round().byte(), None)
        _KNOWN[key] = [(time.perf_counter() - start) / photo.rgb[0].numel()]
    return _KNOWN[key]


@cache
def _photograph() -> Picture:
    # By its path: to import its folder's package would bring Lightning along.
    path = Path(__file__).parents[1] / "data" / "sample" / "valid" / "chelsea.png"
    hr = images.read_rgb8(path).float() / 255
    h, w = hr.shape[1:]
    return Picture(images.bicubic(hr, (2 * h, 2 * w)).clamp(0, 1))

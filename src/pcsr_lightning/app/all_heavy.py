"""The all-heavy run that the page compares with: every pixel by the heaviest upsampler, timed.

Legend: B batch, n HR rows of a strip, W HR columns.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from pcsr_lightning.inference import Session
from pcsr_lightning.inference.class_images import NO_CLASS
from pcsr_lightning.inference.engine import Progress, part_of
from pcsr_lightning.inference.kernels import Strip


class AllHeavyRun:
    """Computes class 0 at every pixel of a session, all of them for the sake of the time it takes.

    Attributes:
        seconds: of the upsampler so far, the features being there.
    """

    def __init__(self, session: Session) -> None:
        self._session, self.seconds = session, 0.0
        self._timed_BHW = torch.zeros_like(session.class_images.done_MBHW[0])

    @property
    def bytes(self) -> int:
        """What of the session's memory it needs: the features and its result."""
        H, W = self._session.size
        return self._session.feature_bytes + 12 * H * W

    def run(self, progress: Progress | None = None) -> Tensor:
        """The picture ``(3, H, W)`` in [0, 1]; not refined, there are no seams.

        Pixels that no routing has asked of class 0 come first: they are what a larger budget has
        to pay for, so that soon it has little to pay. A call that was stopped is resumed by the
        next. Afterwards every routing finds its heavy pixels computed.
        """
        done_BHW = self._session.class_images.done_MBHW[0]
        for known_BHW, start in ((done_BHW, 0.0), (self._timed_BHW, 0.5)):

            def work(strip: Strip, feat_BrwD: Tensor, known_BHW: Tensor = known_BHW) -> None:
                rows = slice(strip.hr_top, strip.hr_bottom)
                self._time(strip, feat_BrwD, ~(self._timed_BHW[:, rows] | known_BHW[:, rows]))

            self._session.each_strip(work, part_of(progress, start, start + 0.5))
        with torch.inference_mode(False):
            return self._session.class_images.image_MB3HW[0, 0].clamp(0, 1)

    def _time(self, strip: Strip, feat_BrwD: Tensor, wanted_BnW: Tensor) -> None:
        if not bool(wanted_BnW.any()):
            return
        start = time.perf_counter()
        class_BnW = torch.zeros_like(wanted_BnW, dtype=torch.uint8)
        self._session.compute(strip, feat_BrwD, class_BnW.masked_fill(~wanted_BnW, NO_CLASS))
        self.seconds += time.perf_counter() - start
        self._timed_BHW[:, strip.hr_top : strip.hr_bottom] |= wanted_BnW

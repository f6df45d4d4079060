"""What each class has made of a picture's pixels so far.

Legend: M classes, B batch, H W HR size, n HR rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

NO_CLASS = 255
"""The class of a pixel that is not to be computed."""


class ClassImages:
    """Each class's upscaling, filled in pixel by pixel, neither refined nor clamped.

    Args:
        shape: ``(M, B, H, W)``.
        device: where it is kept.

    Attributes:
        image_MB3HW: the pixels, 0 where there is none yet.
        done_MBHW: which pixels a class has computed.
    """

    def __init__(self, shape: tuple[int, int, int, int], device: torch.device) -> None:
        M, B, H, W = shape
        # Zeros are written, so that memory is taken here and not in the midst of a run.
        self.image_MB3HW = torch.zeros(M, B, 3, H, W, device=device).fill_(0)
        self.done_MBHW = torch.zeros(shape, dtype=torch.bool, device=device)

    def missing(self, rows: slice, class_BnW: Tensor) -> Tensor | None:
        """``class_BnW`` with :data:`NO_CLASS` where the class has the pixel; ``None`` if all have.

        Args:
            rows: HR rows.
            class_BnW: the class wanted of each of their pixels.
        """
        known_BnW = self.done_MBHW[-1, :, rows].to(class_BnW.device)
        for j in range(len(self.done_MBHW) - 1):
            done_BnW = self.done_MBHW[j, :, rows].to(class_BnW.device)
            known_BnW = torch.where(class_BnW == j, done_BnW, known_BnW)
        return None if bool(known_BnW.all()) else class_BnW.masked_fill(known_BnW, NO_CLASS)

    def pick(self, rows: slice, class_BnW: Tensor) -> Tensor:
        """Each pixel of the rows as its class makes it: ``(B, 3, n, W)``."""
        picked_B3nW = self.image_MB3HW[-1, :, :, rows].to(class_BnW.device)
        for j in range(len(self.image_MB3HW) - 1):
            image_B3nW = self.image_MB3HW[j, :, :, rows].to(class_BnW.device)
            picked_B3nW = torch.where((class_BnW == j)[:, None], image_B3nW, picked_B3nW)
        return picked_B3nW

    def put(self, rows: slice, class_BnW: Tensor, sr_B3nW: Tensor) -> None:
        """Takes new pixels, each for its class; none where that is :data:`NO_CLASS`."""
        for j in range(len(self.image_MB3HW)):
            mine_BnW = class_BnW == j
            if bool(mine_BnW.any()):
                image_B3nW = self.image_MB3HW[j, :, :, rows]
                torch.where(mine_BnW[:, None], sr_B3nW, image_B3nW, out=image_B3nW)
                self.done_MBHW[j, :, rows] |= mine_BnW

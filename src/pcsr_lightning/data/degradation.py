"""From HR pixels to LR ones: the degradation that a model learns to undo."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pcsr_lightning.data.transfer import to_device
from pcsr_lightning.images import bicubic, bicubic_crops


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


class DegradedPair(NamedTuple):
    """LR pixels twice, each ``(B, 3, h, w)``, float32.

    Attributes:
        lr_B3hw: with all that a degradation does.
        clean_lr_B3hw: before what it adds to them, such as noise and compression; ``None`` where
            it adds nothing.
    """

    lr_B3hw: Tensor
    clean_lr_B3hw: Tensor | None = None


class Degradation(ABC):
    """Makes LR pictures. ``data.degradation._target_=my_package.MyDegradation`` takes another one.

    Attributes:
        margin: how many LR pixels around a crop it looks at.
        draws_on_device: its generator lives on the device of the windows, and not on the CPU.
    """

    margin: float = 2.0
    draws_on_device: bool = False

    @abstractmethod
    def __call__(
        self,
        window_B3HW: Tensor,
        box: Box,
        size: tuple[int, int],
        generator: torch.Generator,
    ) -> Tensor:
        """The LR pixels of a part of each window.

        Args:
            window_B3HW: HR pixels in [0, 1], float32, on the device that trains. In training a crop
                with ``margin`` LR pixels around it, those beyond the picture's border mirrored; in
                validation a full image, with none.
            box: the part of the window that is to be seen in LR: the crop, or the full image.
            size: ``(h, w)`` of the result. The scale is ``box.height / h``.
            generator: random numbers, on the CPU unless ``draws_on_device``. In training they
                depend on seed, step and process alone, in validation on seed and picture. A
                degradation that draws from no other source gives the same batches again after
                resuming.

        Returns:
            ``(B, 3, h, w)``, float32, in [0, 1] or a little beyond.
        """

    def pair(
        self, window_B3HW: Tensor, box: Box, size: tuple[int, int], generator: torch.Generator
    ) -> DegradedPair:
        """The same pixels, and what they were before anything was added to them.

        A degradation that adds noise or the like overrides it, if ``denoise=true`` is to learn how
        much of that is taken away.
        """
        return DegradedPair(self(window_B3HW, box, size, generator))

    def mixed(
        self,
        window_B3SS: Tensor,
        margin: int,
        sides: Sequence[int],
        size: int,
        generator: torch.Generator,
    ) -> Tensor:
        """The LR pixels of square crops of different scales (``data.mix_scales=true``).

        One crop after the other, unless a class has a quicker way.

        Args:
            window_B3SS: as above, of one side for all crops.
            margin: where each crop begins, from the window's top and left.
            sides: of the crops.
            size: side of the results.
            generator: as above.

        Returns:
            ``(B, 3, size, size)``, float32.
        """
        boxes = [Box(margin, margin, side, side) for side in sides]
        crops = [
            self(window_B3SS[b : b + 1], box, (size, size), generator)
            for b, box in enumerate(boxes)
        ]
        return torch.cat(crops)


class BicubicDegradation(Degradation):
    """MATLAB-style bicubic downscaling, neither rounded nor clamped, as in the paper (Sec. 4.1)."""

    # The stretched kernel reaches 1.5 LR pixels (and half an HR pixel) beyond a crop.
    margin = 2.0

    def __call__(
        self, window_B3HW: Tensor, box: Box, size: tuple[int, int], generator: torch.Generator
    ) -> Tensor:
        """As :class:`Degradation` says; nothing is random."""
        del generator
        if _square_inside(window_B3HW, box, size, BicubicDegradation.margin):
            # A training crop: far fewer operations than `bicubic` has, which counts on a GPU.
            return _squares(window_B3HW, box.top, [box.height] * len(window_B3HW), size[0])
        scale = (size[0] / box.height, size[1] / box.width)
        return bicubic(window_B3HW, size, scale, (box.top, box.left))

    def mixed(
        self,
        window_B3SS: Tensor,
        margin: int,
        sides: Sequence[int],
        size: int,
        generator: torch.Generator,
    ) -> Tensor:
        """All crops at once; one by one for a class that does more in ``__call__``."""
        if type(self).__call__ is not BicubicDegradation.__call__:
            return super().mixed(window_B3SS, margin, sides, size, generator)
        return _squares(window_B3SS, margin, sides, size)


def _squares(window_B3SS: Tensor, margin: int, sides: Sequence[int], size: int) -> Tensor:
    side_B = to_device(np.array(sides), window_B3SS.device)
    return bicubic_crops(window_B3SS, margin, side_B, size)


def _square_inside(window_B3HW: Tensor, box: Box, size: tuple[int, int], margin: float) -> bool:
    """Whether a box is a square of a square window, with ``margin`` LR pixels on all sides."""
    height, width = window_B3HW.shape[-2:]
    around = margin * box.height / size[0]
    return (
        window_B3HW.dtype == torch.float32
        and height == width
        and box.top == box.left
        and box.height == box.width
        and size[0] == size[1]
        and around <= box.top <= height - box.height - around
    )

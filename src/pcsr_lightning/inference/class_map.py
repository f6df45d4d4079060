"""A class map: each pixel's class as a colour over the picture's luminance."""

from __future__ import annotations

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError

# Red to blue by way of orange and pale blue: told apart with any common colour blindness.
_ANCHORS = (
    (0.843, 0.098, 0.110),
    (0.992, 0.682, 0.380),
    (0.671, 0.851, 0.914),
    (0.173, 0.482, 0.714),
)
_LUMA = (0.299, 0.587, 0.114)
OPACITY = 0.5


def class_colours(num_classes: int) -> Tensor:
    """The colour of each class, ``(M, 3)`` RGB in [0, 1]: heaviest red, lightest blue."""
    if num_classes < 1:
        raise ConfigError(f"num_classes must be at least 1, not {num_classes}")
    anchors = torch.tensor(_ANCHORS)
    at_M = torch.linspace(0, len(anchors) - 1, num_classes)
    below_M = at_M.floor().long().clamp(max=len(anchors) - 2)
    part_M1 = (at_M - below_M)[:, None]
    return anchors[below_M] * (1 - part_M1) + anchors[below_M + 1] * part_M1


def class_map(
    image_3HW: Tensor, assignment_HW: Tensor, num_classes: int, opacity: float = OPACITY
) -> Tensor:
    """The classes' colours blended over the picture's luminance, ``(3, H, W)`` in [0, 1].

    Args:
        image_3HW: the upscaled picture, RGB in [0, 1].
        assignment_HW: the class of each pixel, 0 the heaviest.
        num_classes: ``M``.
        opacity: 1 shows the colours alone, 0 the luminance alone.

    Raises:
        ConfigError: the two do not fit, or a class is not below ``num_classes``.
    """
    if image_3HW.shape != (3, *assignment_HW.shape):
        raise ConfigError(
            f"a picture {tuple(image_3HW.shape)} and classes {tuple(assignment_HW.shape)} do not "
            "fit: expected (3, H, W) and (H, W)"
        )
    if int(assignment_HW.max()) >= num_classes:
        raise ConfigError(f"class {int(assignment_HW.max())} of {num_classes} classes")
    weights = image_3HW.new_tensor(_LUMA)[:, None, None]
    luma_1HW = (image_3HW * weights).sum(dim=0, keepdim=True)
    colours_M3 = class_colours(num_classes).to(image_3HW)
    colour_3HW = colours_M3[assignment_HW.long()].permute(2, 0, 1)
    return ((1 - opacity) * luma_1HW + opacity * colour_3HW).clamp(0, 1)

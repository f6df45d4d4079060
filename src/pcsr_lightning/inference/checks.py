"""Checks of pictures, sizes and scales, and of what a network computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError, PCSRError
from pcsr_lightning.routing.policy import is_number as is_number

MAX_SCALE = 16.0
"""Beyond this the request is taken for a mistake: PCSR is trained for x2 to x4."""
RANGE_TOLERANCE = 0.3
"""How far a picture may leave [0, 1]. A bicubic result kept in float overshoots by up to 0.28 (the
kernel's negative weights, in two directions); pictures in [-1, 1] or 0..255 leave it further."""


def _as_tuple(value: object) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()


def output_size(lr_size: tuple[int, int], scale: float | Sequence[float]) -> tuple[int, int]:
    """The size of the result: ``(round(h * sy), round(w * sx))``.

    Args:
        lr_size: ``(h, w)``.
        scale: one number, or one for height and one for width; 1 to 16, fractions too.

    Raises:
        ConfigError: a scale that is not a number in that range.

    Example:
        >>> output_size((48, 40), 2.5)
        (120, 100)
    """
    scales = (scale, scale) if is_number(scale) else _as_tuple(scale)
    if len(scales) != 2 or not all(is_number(s) for s in scales):
        raise ConfigError(f"scale must be one finite number or two, not {scale!r}")
    for s in scales:
        if not 1 <= s <= MAX_SCALE:
            raise ConfigError(f"scale must lie between 1 and {MAX_SCALE:g}, not {s:g}")
    return round(lr_size[0] * scales[0]), round(lr_size[1] * scales[1])


def check_size(lr_size: tuple[int, int], size: Sequence[int]) -> tuple[int, int]:
    """An output size given explicitly, as ``(H, W)``.

    Raises:
        ConfigError: not two whole numbers, smaller than the picture, or absurdly large.
    """
    H_W = _as_tuple(size)
    if len(H_W) != 2 or not all(is_number(n) and n == int(n) for n in H_W):
        raise ConfigError(f"size must be two whole numbers (height, width), not {size!r}")
    H, W = int(H_W[0]), int(H_W[1])
    for n, N in zip(lr_size, (H, W), strict=True):
        if not n <= N <= MAX_SCALE * n:
            raise ConfigError(
                f"cannot make {H} x {W} pixels of {lr_size[0]} x {lr_size[1]} (height "
                f"x width): each side must grow by a factor of 1 to {MAX_SCALE:g}"
            )
    return H, W


def check_picture(lr_B3hw: Tensor, device: torch.device) -> None:
    """A batch of pictures as the networks want it.

    Raises:
        ConfigError: wrong type, shape, device or range, with what to do about it.
    """
    if not isinstance(lr_B3hw, Tensor):
        raise ConfigError(
            f"the picture must be a torch tensor (B, 3, h, w), not {type(lr_B3hw).__name__}"
        )
    shape = tuple(lr_B3hw.shape)
    if lr_B3hw.ndim == 3:
        raise ConfigError(f"the picture must be (B, 3, h, w), not {shape}: add [None] in front")
    if lr_B3hw.ndim != 4 or shape[1] != 3:
        raise ConfigError(f"the picture must be (B, 3, h, w) with channels R, G, B, not {shape}")
    if 0 in shape:
        raise ConfigError(f"the picture is empty: {shape}")
    if not lr_B3hw.is_floating_point():
        raise ConfigError(
            f"the picture must be floating point in [0, 1], not {lr_B3hw.dtype}: for 8-bit values "
            "take picture.float() / 255"
        )
    if lr_B3hw.device != device:
        raise ConfigError(
            f"the picture is on {lr_B3hw.device} and the model on {device}: move one of them"
        )
    low, high = (float(v) for v in torch.aminmax(lr_B3hw))
    # aminmax passes NaN on.
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = int((~torch.isfinite(lr_B3hw)).sum())
        raise ConfigError(f"the picture holds {bad} values that are NaN or infinite")
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise ConfigError(f"the picture must lie in [0, 1], not in [{low:g}, {high:g}]")


def check_finite(values: Tensor, what: str) -> None:
    """Stops where a network gave NaN or infinity, which would otherwise be written as black.

    Raises:
        PCSRError: a value is NaN or infinite.
    """
    # A sum is finite only if every term is, and needs no memory; that of float32 may overflow.
    wide = torch.float64 if values.dtype == torch.float64 else torch.float32
    if not bool(torch.isfinite(values.sum(dtype=wide))):
        bad = int((~torch.isfinite(values)).sum())
        if not bad:
            return
        raise PCSRError(
            f"{what}: {bad} of {values.numel()} values are NaN or infinite. The model's weights "
            "are damaged, or too large for its precision"
        )

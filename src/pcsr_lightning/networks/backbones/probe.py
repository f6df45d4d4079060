"""Measures a custom backbone's output channels and halo on small images.

A halo that is too small would put seams into results silently, so it is measured: NaN in one row of
the image shows how far that row reaches, whatever the weights are. And since features must not
depend on where a tile begins (with a strided layer they do), tiles are compared too.

Legend: B batch, h w image size, D channels, H output rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks.modes import evaluating

HEIGHTS = (17, 33, 65, 129, 257)
"""Image heights on which the halo is measured; a larger halo counts as the whole image."""
WIDTH = 12
TOLERANCE = 1e-3
"""Allowed difference of a tile from the whole image, relative to the largest value."""


class Measured(NamedTuple):
    """What :func:`measure` found.

    Attributes:
        channels: of the output.
        halo: rows of the image around an output row that can change it; ``None`` for all, or
            where the output depends on where a tile begins.
    """

    channels: int
    halo: int | None


def measure(module: nn.Module, what: str, scale: int = 1) -> Measured:
    """Measures ``module``, which takes ``(1, 3, h, w)``; it is not changed.

    Args:
        module: a backbone, or an original model without its mean.
        what: its name for messages.
        scale: output rows (and columns) per row of the image.

    Raises:
        ConfigError: it fails on an image, or its output is not ``(1, D, h * scale, w * scale)``.
    """
    with torch.no_grad(), evaluating(module), _random_weights(module):
        y_1DHW = _run(module, _picture(module, HEIGHTS[0]), what, scale)
        halo = _reach(module, what, scale)
        if halo is not None and not _same_from_anywhere(module, halo, what, scale):
            halo = None
    return Measured(y_1DHW.shape[1], halo)


def _reach(module: nn.Module, what: str, scale: int) -> int | None:
    for h in HEIGHTS:
        x_13hw, middle = _picture(module, h), h // 2
        x_13hw[:, :, middle] = torch.nan
        y_1DHW = _run(module, x_13hw, what, scale)
        [touched] = y_1DHW[0].isnan().any(dim=2).any(dim=0).nonzero(as_tuple=True)
        if not len(touched):
            return None  # it replaces NaN: nothing can be measured
        first, last = int(touched[0]) // scale, int(touched[-1]) // scale
        if first > 0 and last < h - 1:
            return max(middle - first, last - middle)
    return None


def _same_from_anywhere(module: nn.Module, halo: int, what: str, scale: int) -> bool:
    h = 2 * halo + 16
    x_13hw = _picture(module, h)
    whole_1DHW = _run(module, x_13hw, what, scale)
    largest = whole_1DHW.abs().max()
    for first, last in ((1, h), (6, h), (0, h - 1)):
        tile_1DHW = _run(module, x_13hw[:, :, first:last], what, scale)
        top = first + halo if first else 0
        bottom = last - halo if last < h else h
        expected = whole_1DHW[:, :, top * scale : bottom * scale]
        found = tile_1DHW[:, :, (top - first) * scale : (bottom - first) * scale]
        # Written so that a NaN fails it.
        if not bool((found - expected).abs().max() <= TOLERANCE * largest):
            return False
    return True


def _run(module: nn.Module, x_13hw: Tensor, what: str, scale: int) -> Tensor:
    h, w = x_13hw.shape[-2:]
    try:
        y = module(x_13hw.clone())
    except Exception as error:  # arbitrary code of the module ran
        first = " ".join(str(error).split())
        raise ConfigError(
            f"{what} fails on a picture of {h} x {w} pixels (height x width), and must take any "
            f"size: {type(error).__name__}: {first}"
        ) from error
    wanted = f"(1, {'D' if scale == 1 else 3}, {h * scale}, {w * scale})"
    if not isinstance(y, Tensor) or y.ndim != 4:
        found = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
    elif (len(y), *y.shape[2:]) == (1, h * scale, w * scale) and (scale == 1 or len(y[0]) == 3):
        return y
    else:
        found = tuple(y.shape)
    raise ConfigError(f"{what} gives {found} for a picture (1, 3, {h}, {w}); expected {wanted}")


def _picture(module: nn.Module, h: int) -> Tensor:
    weight = next(module.parameters(), torch.empty(0))
    draw = torch.Generator().manual_seed(h)
    return torch.rand(1, 3, h, WIDTH, generator=draw).to(weight)


@contextmanager
def _random_weights(module: nn.Module) -> Iterator[None]:
    """Random weights inside the block: weights that start at zero would hide what they multiply."""
    kept = [(p, p.detach().clone()) for p in module.parameters() if p.is_floating_point()]
    draw = torch.Generator().manual_seed(0)
    try:
        for p, _ in kept:
            noise = torch.randn(p.shape, generator=draw).to(p)
            if p.ndim > 1:
                p.copy_(noise * p[0].numel() ** -0.5)
            else:
                p.add_(0.1 * noise)
        yield
    finally:
        for p, before in kept:
            p.copy_(before)

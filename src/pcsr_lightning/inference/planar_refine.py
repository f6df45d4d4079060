"""Refinement of pixels in a kernel that numba compiles, in one pass over memory."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from pcsr_lightning.routing.refine import heavy_classes
from pcsr_lightning.routing.refine import refine as plain_refine
from pcsr_lightning.streaming.numba_runtime import (
    kernels_work,
    loaded_kernels,
    multiplies,
    run_in_threads,
    words,
)


def refine(sr_B3nW: Tensor, class_BnW: Tensor, num_classes: int) -> Tensor:
    """What :func:`pcsr_lightning.routing.refine.refine` gives, to the last bit.

    Args:
        sr_B3nW: float32.
        class_BnW: uint8.
        num_classes: ``M``.
    """
    if not _works():
        return plain_refine(sr_B3nW, class_BnW, num_classes)
    return _refine(sr_B3nW, class_BnW, num_classes)


def _refine(sr_B3nW: Tensor, class_BnW: Tensor, num_classes: int) -> Tensor:
    out_B3nW = torch.empty(sr_B3nW.shape)
    B, n, W = class_BnW.shape
    arrays = words(sr_B3nW), class_BnW.flatten().numpy(), words(out_B3nW)
    run_in_threads(loaded_kernels().refine, B * n, arrays, n, W, heavy_classes(num_classes))
    return out_B3nW


@cache
def _works() -> bool:
    draw = torch.Generator().manual_seed(0)
    sr_23nW = torch.rand(2, 3, 5, 40, generator=draw)
    class_2nW = (torch.rand(2, 5, 40, generator=draw) > 0.1).to(torch.uint8)
    return multiplies(torch.float32) and kernels_work(
        lambda: (_refine(sr_23nW, class_2nW, 2), plain_refine(sr_23nW, class_2nW, 2))
    )

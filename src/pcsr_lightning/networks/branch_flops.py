"""Multiply-adds of backbone, upsamplers and classifier, counted by fvcore on the modules.

All numbers are multiply-adds (one multiplication with its addition is one). Besides convolutions
and linear layers, PReLU is charged 0.5 and batch norm 1 multiply-add per element, so that twice
these numbers is the count of the paper's tables.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pcsr_lightning.networks.compiled import uncompiled
from pcsr_lightning.networks.modes import evaluating
from pcsr_lightning.networks.pcsr import PCSR
from pcsr_lightning.networks.pixel_mlp import BilinearOnly, PixelMLP
from pcsr_lightning.networks.reparameterized import folded


@dataclass(frozen=True)
class BranchMacs:
    """Multiply-adds of the un-hoisted network (the paper's own form, Eq. 9).

    Attributes:
        backbone: per LR pixel.
        upsamplers: per query pixel, heaviest first.
        classifier: per query pixel; 0 for a single class.
    """

    backbone: float
    upsamplers: tuple[float, ...]
    classifier: float

    def branches(self, scale: float | tuple[float, float]) -> list[float]:
        """``flops(B) + flops(U_j)`` per LR pixel, heaviest first: what Eq. 9 compares."""
        sy, sx = scale if isinstance(scale, tuple) else (scale, scale)
        return [self.backbone + sy * sx * u for u in self.upsamplers]

    def picture(self, lr_size: tuple[int, int], counts_M: Sequence[int]) -> float:
        """Multiply-adds of an image with ``counts_M[j]`` pixels in class ``j``."""
        pixels = sum(c * u for c, u in zip(counts_M, self.upsamplers, strict=True))
        return lr_size[0] * lr_size[1] * self.backbone + pixels + sum(counts_M) * self.classifier


def count_macs(module: nn.Module, *inputs: Tensor) -> float:
    """Multiply-adds of ``module(*inputs)``, by fvcore."""
    # Imported here: loading a model does not need it, and it takes a tenth of a second.
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import addmm_flop_jit

    # It warns about every operator it charges nothing for and every part not called.
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    with uncompiled(module) as plain:
        return _count(FlopCountAnalysis(folded(plain), inputs), addmm_flop_jit)


def _count(analysis: Any, addmm: Any) -> float:
    analysis.set_op_handle(
        **{
            "aten::prelu": _per_element(0.5),
            "aten::_prelu_kernel": _per_element(0.5),
            "aten::batch_norm": _per_element(1.0),
            "aten::addmm_": addmm,
            "aten::scaled_dot_product_attention": _attention,
            # Fixed interpolation of the three input channels; the paper counts it as free.
            "aten::upsample_bilinear2d": _per_element(0.0),
            "aten::upsample_nearest2d": _per_element(0.0),
        }
    )
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    return float(analysis.total())


def branch_macs(model: PCSR, h0: int = 16, w0: int = 16) -> BranchMacs:
    """The cost of each part, counted on a small ``h0 x w0`` input as Eq. 9 does.

    The result is per pixel and therefore does not depend on ``h0 x w0`` (footnote 3), except for a
    backbone that looks at the whole image.
    """
    with evaluating(model), torch.no_grad():
        lr_13hw = model.upsampler(0).project.weight.new_zeros(1, 3, h0, w0)
        return BranchMacs(
            backbone=count_macs(model.backbone, lr_13hw) / (h0 * w0),
            upsamplers=tuple(_mlp_macs(model.upsampler(j)) for j in range(model.num_classes)),
            classifier=0.0 if model.classifier is None else _mlp_macs(model.classifier),
        )


def hoisted_macs(mlp: PixelMLP, lr_pixels: int, queries: int) -> float:
    """Multiply-adds of a hoisted MLP: the projection per LR pixel, the rest per query.

    The offset terms (a few per row and column) are left out: under 0.1% of any image.
    """
    if isinstance(mlp, BilinearOnly):
        return 0.0
    weight_CD = mlp.project.weight
    project = count_macs(mlp.project, weight_CD.new_zeros(1, weight_CD.shape[1]))
    tail = count_macs(mlp.tail, weight_CD.new_zeros(1, len(weight_CD))) if len(mlp.tail) else 0.0
    return lr_pixels * project + queries * tail


def _mlp_macs(mlp: PixelMLP) -> float:
    if isinstance(mlp, BilinearOnly):
        return 0.0
    return count_macs(mlp, mlp.project.weight.new_zeros(1, mlp.in_channels + 4))


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Both products: of queries with keys, and of the weights with the values."""
    (*_, queries, _), (*_, keys, width) = (x.type().sizes() for x in inputs[:2])
    out = outputs[0].type().sizes()
    heads = math.prod(out[:-2])
    return Counter({"attention": heads * queries * keys * (width + out[-1])})


def _per_element(macs: float) -> Any:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:  # noqa: ARG001
        return Counter({"elementwise": macs * math.prod(outputs[0].type().sizes())})

    return handle

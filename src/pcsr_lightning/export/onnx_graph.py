"""The networks as modules that can be exported to ONNX: routing by gather and scatter, any size.

Legend: h w LR size, H W HR size, s the scale, N = h * w LR pixels, S = s * s HR pixels in each of
them, K queries of one class, D feature channels, C width of a first layer, O outputs, M classes.
The batch is always 1. Queries are ordered LR pixel by LR pixel, ``(N, S)``, so that the two indices
of a query are its LR pixel and its place within it, and no coordinates are needed.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference.checks import MAX_SCALE, is_number
from pcsr_lightning.inference.flops import model_macs
from pcsr_lightning.networks import (
    PCSR,
    BilinearOnly,
    Original,
    PixelMLP,
    QueryGrid,
    bilinear_upsample,
)
from pcsr_lightning.networks.backbones.bsrn import DistillationBlock, SpatialAttention
from pcsr_lightning.routing import CostRule, RoutingConfig
from pcsr_lightning.routing.cost import class_costs
from pcsr_lightning.routing.refine import heavy_classes


def onnx_graph(
    model: PCSR | Original, scale: int, cost: CostRule | str, refine: bool | None
) -> RoutedGraph | UnroutedGraph:
    """The network as a module with the inputs and outputs of the ONNX file, float32 on the CPU.

    Args:
        model: not changed.
        scale: an integer.
        cost: see :func:`class_costs`.
        refine: whether light pixels beside heavy ones are smoothed; ``None``: by the scale.

    Raises:
        ConfigError: a scale, cost rule or model that cannot be exported.
    """
    if not isinstance(model, PCSR | Original):
        raise ConfigError(
            f"the model must be a PCSR or an Original network, not {type(model).__name__}; "
            "pcsr_lightning.load gives one"
        )
    if not is_number(scale) or scale != int(scale) or not 1 <= scale <= MAX_SCALE:
        raise ConfigError(
            f"an ONNX file is made for one integer scale from 1 to {MAX_SCALE:g}, not {scale!r}"
        )
    if model.scale is not None and scale != model.scale:
        raise ConfigError(
            f"this is an original {model.backbone.name} model, made for scale {model.scale} only, "
            f"not {scale}"
        )
    if not isinstance(refine, bool | None):
        raise ConfigError(f"refine must be true or false, or None for the scale's, not {refine!r}")
    copied = copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)
    for block in copied.modules():
        if isinstance(block, DistillationBlock):
            block.add_module("spatial", _AnySizeAttention(block.spatial))
    if copied.num_classes == 1:
        return UnroutedGraph(copied, int(scale))
    assert isinstance(model, PCSR)
    assert isinstance(copied, PCSR)
    # Of the original: the copy's attention modules are for export only.
    costs_M = class_costs(model_macs(model).plain.branches(int(scale)), cost)
    return RoutedGraph(
        copied, int(scale), costs_M, RoutingConfig(refine=refine).refines((scale, scale))
    )


class _HoistedMLP(nn.Module):
    """A pixel-level MLP at one integer scale, its first layer computed once per LR pixel."""

    table_SC: Tensor

    def __init__(self, mlp: PixelMLP, scale: int) -> None:
        super().__init__()
        self.mlp = mlp
        # At integer scales all LR pixels have the same offsets.
        rows_sC, columns_sC = mlp.offset_terms(QueryGrid.make((1, 1), (scale, scale)))
        self.register_buffer("table_SC", (rows_sC[:, None] + columns_sC).flatten(0, 1))

    def dense(self, feat_1Dhw: Tensor) -> Tensor:
        """At every query: ``(N, S, O)``."""
        proj_N1C = self.mlp.project_features(feat_1Dhw).flatten(0, 2)[:, None]
        return self.mlp.finish(proj_N1C + self.table_SC)

    def sparse(self, feat_1Dhw: Tensor, near_K: Tensor, place_K: Tensor) -> Tensor:
        """At some queries: ``(K, O)``."""
        proj_NC = self.mlp.project_features(feat_1Dhw).flatten(0, 2)
        first_KC = proj_NC.index_select(0, near_K) + self.table_SC.index_select(0, place_K)
        return self.mlp.finish(first_KC)


class RoutedGraph(nn.Module):
    """A PCSR of two or more classes: each query is computed by the upsampler of its class only."""

    bias_M: Tensor
    routed = True

    def __init__(self, model: PCSR, scale: int, costs_M: Tensor, refine: bool) -> None:
        super().__init__()
        assert model.classifier is not None
        self.model, self.scale, self.refine = model, scale, refine
        self.classifier = _HoistedMLP(model.classifier, scale)
        mlps = [model.upsampler(j) for j in range(model.num_classes)]
        # The residual of a free class, which is the last, stays 0.
        self.upsamplers = nn.ModuleList(
            _HoistedMLP(mlp, scale) for mlp in mlps if not isinstance(mlp, BilinearOnly)
        )
        self.register_buffer("bias_M", -costs_M.log().float())

    def forward(self, image: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        h, w = image.shape[-2:]
        feat_1Dhw = self.model.features(image)
        logits_NSM = self.classifier.dense(feat_1Dhw)
        class_NS = (logits_NSM + k * self.bias_M).argmax(dim=2)
        residual_NS3 = image.new_zeros(h * w, self.scale**2, 3)
        for j, upsampler in enumerate(self.upsamplers):
            assert isinstance(upsampler, _HoistedMLP)
            where_KK = (class_NS == j).nonzero().unbind(dim=1)
            residual_K3 = upsampler.sparse(feat_1Dhw, *where_KK)
            residual_NS3 = residual_NS3.index_put(where_KK, residual_K3)
        class_11HW = _unfold(class_NS[:, :, None].to(torch.uint8), h, w, self.scale)
        base_13HW = bilinear_upsample(image, (h * self.scale, w * self.scale))
        sr_13HW = base_13HW + _unfold(residual_NS3, h, w, self.scale)
        if self.refine:
            sr_13HW = _refine(sr_13HW, class_11HW < heavy_classes(self.model.num_classes))
        return sr_13HW.clamp(0, 1), class_11HW[:, 0]


class UnroutedGraph(nn.Module):
    """A network without routing: an original model, or a PCSR of one class."""

    routed = False

    def __init__(self, model: PCSR | Original, scale: int) -> None:
        super().__init__()
        self.model, self.scale = model, scale
        self.upsampler = _HoistedMLP(model.upsampler(0), scale) if isinstance(model, PCSR) else None

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        h, w = image.shape[-2:]
        if isinstance(self.model, PCSR):
            assert self.upsampler is not None
            residual_NS3 = self.upsampler.dense(self.model.features(image))
            base_13HW = bilinear_upsample(image, (h * self.scale, w * self.scale))
            sr_13HW = base_13HW + _unfold(residual_NS3, h, w, self.scale)
        else:
            sr_13HW = self.model(image)
        class_1HW = torch.zeros(1, h * self.scale, w * self.scale, dtype=torch.uint8)
        return sr_13HW.clamp(0, 1), class_1HW


def _unfold(values_NSO: Tensor, h: int, w: int, scale: int) -> Tensor:
    """Rearranges queries to an image: ``(N, S, O)`` to ``(1, O, H, W)``."""
    outputs = values_NSO.shape[2]
    values = values_NSO.view(h, w, scale, scale, outputs).permute(4, 0, 2, 1, 3)
    return values.reshape(1, outputs, h * scale, w * scale)


def _refine(sr_13HW: Tensor, heavy_11HW: Tensor) -> Tensor:
    """:func:`pcsr_lightning.routing.refine` for images of any size, tiny ones too."""
    H, W = sr_13HW.shape[-2:]
    row_H, column_W = torch.arange(H), torch.arange(W)
    inner_HW = ((row_H > 0) & (row_H < H - 1))[:, None] & ((column_W > 0) & (column_W < W - 1))
    beside_heavy = F.max_pool2d(heavy_11HW.float(), 3, stride=1, padding=1) > 0
    # The border pixels, which the padding would change, are not used.
    mean_13HW = F.avg_pool2d(sr_13HW, 3, stride=1, padding=1)
    return torch.where(inner_HW & beside_heavy & ~heavy_11HW, mean_13HW, sr_13HW)


class _AnySizeAttention(nn.Module):
    """BSRN's spatial attention without its branch for tiny images.

    An exported graph has no branches. Repeating the edge up to ``max(size, SMALLEST)`` rows and
    columns gives the same for tiny images, and changes nothing for others.
    """

    def __init__(self, attention: SpatialAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        a, (h, w) = self.attention, x.shape[-2:]
        narrow = a.narrow(x)
        rows = torch.arange(_at_least(h, a.SMALLEST)).clamp(max=h - 1)
        columns = torch.arange(_at_least(w, a.SMALLEST)).clamp(max=w - 1)
        grid = narrow.index_select(2, rows).index_select(3, columns)
        grid = F.max_pool2d(a.stride(grid), kernel_size=7, stride=3)
        grid = F.interpolate(a.coarse(grid), size=(h, w), mode="bilinear", align_corners=False)
        return x * torch.sigmoid(a.widen(grid + a.skip(narrow)))


def _at_least(n: int, least: int) -> int:
    # The built-in max would fix the result for the size of the example input.
    larger: int = torch.sym_max(n, least)  # type: ignore[no-untyped-call]
    return larger

"""All pixel-level MLPs of a model in one Triton kernel, for GPUs.

A tile of HR pixels reads its LR pixels' share of the first layers, runs the classifier, and each
class's upsampler if one of its pixels takes that class; the upsampled input is added before
anything is written. What the kernels are told to do is checked against the plain way on a few
pixels, once for each model; where they fail or differ, the plain way is taken and a warning logged.

Legend: B batch, r w LR rows and columns of a strip, n W its HR rows and columns, D feature
channels, M classes, F padded widths of all first layers together, C of one MLP, O padded outputs.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.errors import PCSRError, single_line
from pcsr_lightning.inference.input_rows import InputRows
from pcsr_lightning.inference.kernels import FractionalScale, QueryKernels, Strip
from pcsr_lightning.inference.output_rows import INTEGER_TYPES, UpsampledRows
from pcsr_lightning.inference.prepared import Prepared
from pcsr_lightning.networks import PCSR, BilinearOnly, PixelMLP, QueryGrid
from pcsr_lightning.networks.cuda_graph import uses_tf32
from pcsr_lightning.routing.refine import heavy_classes

if TYPE_CHECKING:
    from types import ModuleType

_log = logging.getLogger(__name__)

OUTPUTS = 16
"""Padded outputs of an MLP, and the least width: what tensor cores multiply at least."""
TILE = {torch.bfloat16: (4, 32), torch.float32: (2, 32)}
"""HR rows and columns of a tile. 32 columns of 8-bit pixels are the least that memory transfers."""
WARPS = {torch.bfloat16: 8, torch.float32: 4}
"""Of 32 threads: so that registers hold what a tile needs (compiled for compute capability 9.0)."""
TOLERANCE = {"tf32x3": 2e-5, "tf32": 1e-2, "bf16": 0.05}
"""Of the check against the plain way, relative to the largest value, by the kind of products."""


class RoutedRows(NamedTuple):
    """HR rows of a strip.

    Attributes:
        sr_B3nW: float32, not clamped; or integers.
        class_BnW: uint8.
        counts_M: pixels of each class.
    """

    sr_B3nW: Tensor
    class_BnW: Tensor
    counts_M: list[int]


class PackedMLPs:
    """The upsamplers, heaviest first, and the classifier of a model, as the kernel reads them.

    Args:
        mlps: of float32.
        dtype: of the arithmetic.

    Attributes:
        layers: of each MLP: where its first layer starts, its width as a sum of two, its hidden
            layers, and where its later weights and biases start.
        project_FD: the first layers' part that reads features.
        offset_4F: their part that reads offsets, float32; ``bias_F`` likewise.
        weights: of all later layers, ``(C, C)`` or ``(C, O)``, inputs first, one after another.
        biases: of these, float32.
        works: which of the kernel's modes have been checked, and whether they can be used.
    """

    def __init__(self, mlps: Sequence[PixelMLP], dtype: torch.dtype) -> None:
        layers: list[tuple[int, ...]] = []
        project: list[Tensor] = []
        offset: list[Tensor] = []
        bias: list[Tensor] = []
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for mlp in mlps:
            a, b = split_width(max(mlp.hidden, default=1))
            C, hidden = a + b, len(mlp.hidden)
            starts = [sum(len(x) for x in parts) for parts in (bias, weights, biases)]
            layers.append((starts[0], a, b, hidden, *starts[1:]))
            project.append(_padded(mlp.project.weight, C))
            offset.append(_padded(mlp.offset.weight, C))
            bias.append(_padded(mlp.project.bias, C))
            tail = [layer for layer in mlp.tail if isinstance(layer, torch.nn.Linear)]
            for n, layer in enumerate(tail, start=1):
                outputs = OUTPUTS if n == hidden else C
                weights.append(_padded(layer.weight, outputs, C).t().flatten())
                biases.append(_padded(layer.bias, outputs))
        self.dtype, self.layers = dtype, tuple(layers)
        self.project_FD = torch.cat(project).to(dtype)
        self.offset_4F = torch.cat(offset).t().contiguous()
        self.bias_F = torch.cat(bias)
        nothing = self.bias_F.new_zeros(1)  # a pointer is needed even where there is nothing
        self.weights = torch.cat(weights or [nothing]).to(dtype)
        self.biases = torch.cat(biases or [nothing])
        self.works: dict[str, bool] = {}


_PACKED: Prepared[PackedMLPs] = Prepared()


class FusedKernels(FractionalScale):
    """The model's MLPs in Triton, in the picture's own order; the plain way where that fails."""

    def __init__(self, model: PCSR, grid: QueryGrid, dtype: torch.dtype) -> None:
        super().__init__(model, grid, dtype)
        mlps = [*self._upsamplers, *([] if model.classifier is None else [model.classifier])]
        packed = _PACKED.get(model, dtype, lambda: PackedMLPs(mlps, dtype))
        self._model, self._packed = model, packed
        w_dy, w_dx, w_cy, w_cx = packed.offset_4F
        cell = grid.cell[0] * w_cy + grid.cell[1] * w_cx + packed.bias_F
        self._rows_HF = torch.addcmul(cell, grid.dy_H[:, None], w_dy)
        self._cols_WF = grid.dx_W[:, None] * w_dx

    def logits(self, feat_BrwD: Tensor, strip: Strip) -> Tensor:
        if self._classifier is None or not self._can("logits"):
            return super().logits(feat_BrwD, strip)
        return self._logits(feat_BrwD, strip)

    def residual(
        self, feat_BrwD: Tensor, strip: Strip, class_BQ: Tensor, every_class: bool = False
    ) -> Tensor:
        if not self._can("residual"):
            return super().residual(feat_BrwD, strip, class_BQ, every_class)
        return self._residual(feat_BrwD, strip, class_BQ)

    def upscale(
        self,
        feat_BrwD: Tensor,
        strip: Strip,
        upsampled: UpsampledRows,
        class_BnW: Tensor | None,
        logit_biases: Sequence[float] | None = None,
        bits: int | None = None,
    ) -> RoutedRows | None:
        """A strip's HR rows; ``None`` if the kernel cannot be used.

        Args:
            feat_BrwD: its features.
            strip: which rows they are.
            upsampled: what the upsamplers' results are added to.
            class_BnW: uint8; ``None`` to take the class with the largest logit.
            logit_biases: what is added to the logits of each class before.
            bits: 8 or 16 rounds to integers.
        """
        if not self._can("routed" if class_BnW is None else "given"):
            return None
        return self._upscale(feat_BrwD, strip, upsampled, class_BnW, logit_biases, bits)

    def refine(self, sr_B3nW: Tensor, class_BnW: Tensor, bits: int | None = None) -> Tensor:
        if not self._can("refined"):
            return super().refine(sr_B3nW, class_BnW, bits)
        return self._refine(sr_B3nW, class_BnW, bits)

    def _logits(self, feat_BrwD: Tensor, strip: Strip) -> Tensor:
        B, n, W = len(feat_BrwD), strip.hr_bottom - strip.hr_top, self.grid.size[1]
        out_BMnW = feat_BrwD.new_empty(B, self.num_classes, n, W, dtype=torch.float32)
        self._launch(feat_BrwD, strip, "logits", logits=out_BMnW)
        return out_BMnW.flatten(2)

    def _residual(self, feat_BrwD: Tensor, strip: Strip, class_BQ: Tensor) -> Tensor:
        B, n, W = len(feat_BrwD), strip.hr_bottom - strip.hr_top, self.grid.size[1]
        out_B3nW = feat_BrwD.new_empty(B, 3, n, W, dtype=torch.float32)
        self._launch(feat_BrwD, strip, "given", classes=class_BQ.contiguous(), image=out_B3nW)
        return out_B3nW.flatten(2)

    def _upscale(
        self,
        feat_BrwD: Tensor,
        strip: Strip,
        upsampled: UpsampledRows,
        class_BnW: Tensor | None,
        logit_biases: Sequence[float] | None,
        bits: int | None,
    ) -> RoutedRows:
        B, n, W = len(feat_BrwD), strip.hr_bottom - strip.hr_top, self.grid.size[1]
        device, M = feat_BrwD.device, self.num_classes
        mode = "route" if class_BnW is None else "given"
        if class_BnW is None:
            class_BnW = torch.empty(B, n, W, dtype=torch.uint8, device=device)
        class_BnW = class_BnW.contiguous()
        kind = torch.float32 if bits is None else INTEGER_TYPES[bits]
        sr_B3nW = torch.empty(B, 3, n, W, dtype=kind, device=device)
        stats = torch.zeros(M + 1, dtype=torch.int32, device=device)
        biases = torch.zeros(OUTPUTS)
        biases[:M] = torch.tensor(list(logit_biases or [0.0] * M))
        self._launch(
            feat_BrwD, strip, mode, classes=class_BnW, image=sr_B3nW, stats=stats, bits=bits,
            upsampled=upsampled, logit_biases=biases.to(device),
        )  # fmt: skip
        *counts_M, bad = stats.tolist()
        if bad:
            raise PCSRError(
                f"the upscaled picture: {bad} of {sr_B3nW.numel()} values are NaN or infinite. The "
                "model's weights are damaged, or too large for its precision"
            )
        return RoutedRows(sr_B3nW, class_BnW, counts_M)

    def _launch(
        self,
        feat_BrwD: Tensor,
        strip: Strip,
        mode: str,
        logits: Tensor | None = None,
        classes: Tensor | None = None,
        image: Tensor | None = None,
        stats: Tensor | None = None,
        upsampled: UpsampledRows | None = None,
        logit_biases: Tensor | None = None,
        bits: int | None = None,
    ) -> None:
        packed, W = self._packed, self.grid.size[1]
        B, r, w, _ = feat_BrwD.shape
        n = strip.hr_bottom - strip.hr_top
        proj_BrwF = F.linear(feat_BrwD, packed.project_FD)
        nothing = packed.biases  # stands for what a mode neither reads nor writes
        if stats is None:
            stats = torch.zeros(self.num_classes + 1, dtype=torch.int32, device=feat_BrwD.device)
        if upsampled is None:
            lr, lr_top = nothing[None, None, None], 0
            tables: tuple[Tensor, ...] = (nothing,) * 6
        else:
            lr, lr_top = upsampled.lr_rows(strip.hr_top, strip.hr_bottom)
            lr, tables = lr.contiguous(), upsampled.tables
        th, tw = TILE[packed.dtype]
        with torch.cuda.device(
            proj_BrwF.get_device()
        ):  # Triton starts kernels on the current device
            _kernels().upscale_queries[(-(-n // th) * -(-W // tw), B)](
                proj_BrwF, self._rows_HF, self._cols_WF, self.grid.rows_H, self.grid.cols_W,
                packed.weights, packed.biases, nothing if logit_biases is None else logit_biases,
                lr, *tables,
                nothing if logits is None else logits, nothing if classes is None else classes,
                nothing if image is None else image, stats,
                strip.hr_top, n, W, strip.top, r, w, lr_top, lr.shape[2],
                LAYERS=packed.layers, M=self.num_classes, F=proj_BrwF.shape[3], MODE=mode,
                WITH_BASE=upsampled is not None, BITS=bits or 0, TH=th, TW=tw,
                PRECISION=_products(torch.float32), num_warps=WARPS[packed.dtype],
            )  # fmt: skip

    def _refine(self, sr_B3nW: Tensor, class_BnW: Tensor, bits: int | None) -> Tensor:
        B, _, n, W = sr_B3nW.shape
        kind = torch.float32 if bits is None else INTEGER_TYPES[bits]
        out_B3nW = torch.empty(B, 3, n, W, dtype=kind, device=sr_B3nW.device)
        with torch.cuda.device(sr_B3nW.get_device()):
            _kernels().refine_rows[(-(-n // 4) * -(-W // 64), B)](
                sr_B3nW.contiguous(), class_BnW.contiguous(), out_B3nW, n, W,
                HEAVY=heavy_classes(self.num_classes), BITS=bits or 0, TH=4, TW=64, num_warps=4,
            )  # fmt: skip
        return out_B3nW

    def _can(self, what: str) -> bool:
        """Whether a mode of the kernel gives what the plain way gives; tried on its first use."""
        products = _products(self.dtype)
        key = f"{what}, {products}"
        if key not in self._packed.works:
            try:
                with torch.inference_mode():
                    error = self._difference(what)
                problem = None if error <= TOLERANCE[products] else f"differs by {error:.1e}"
            except Exception as failure:  # a compiler's, a driver's: whatever it is, there is a way
                problem = f"{type(failure).__name__}: {single_line(str(failure))[:300]}"
            if problem is not None:
                _log.warning("Triton kernel (%s): %s; taking PyTorch's operators", what, problem)
            self._packed.works[key] = problem is None
        return self._packed.works[key]

    def _difference(self, what: str) -> float:
        """The largest from the plain way on a small picture, relative to the largest value."""
        model, (h, w), (H, W) = self._model, (3, 17), (7, 40)
        grid, device = model.grid((h, w), (H, W)), model.mean.device
        plain, small = (kind(model, grid, self.dtype) for kind in (FractionalScale, FusedKernels))
        assert isinstance(small, FusedKernels)
        random = torch.Generator().manual_seed(0)
        feat_BrwD = torch.rand(2, h, w, self._packed.project_FD.shape[1], generator=random)
        feat_BrwD = feat_BrwD.to(device, self.dtype)
        lr_B3hw = torch.rand(2, 3, h, w, generator=random).to(device)
        strip, M = Strip(0, h, 0, H), self.num_classes
        class_BnW = torch.arange(2 * H * W).view(2, H, W).div(7).long() % M
        class_BnW = class_BnW.to(device, torch.uint8)
        upsampled = UpsampledRows(InputRows(lr_B3hw), (H, W))
        if what == "logits":
            return _relative(small._logits(feat_BrwD, strip), plain.logits(feat_BrwD, strip))
        if what == "refined":
            sr_B3nW = upsampled.rows(0, H)
            return _relative(
                small._refine(sr_B3nW, class_BnW, None), plain.refine(sr_B3nW, class_BnW)
            )
        if what == "residual":
            found_B3Q = small._residual(feat_BrwD, strip, class_BnW.flatten(1))
            return _relative(found_B3Q, plain.residual(feat_BrwD, strip, class_BnW.flatten(1)))
        error = 0.0
        given = class_BnW if what == "given" else None
        found = small._upscale(feat_BrwD, strip, upsampled, given, None, None)
        if given is None:
            logits_BMQ = plain.logits(feat_BrwD, strip)
            taken_B1Q = found.class_BnW.flatten(1)[:, None].long()
            error = _relative(logits_BMQ.gather(1, taken_B1Q), logits_BMQ.amax(1, keepdim=True))
        plain_B3Q = plain.residual(feat_BrwD, strip, found.class_BnW.flatten(1))
        expected_B3nW = plain_B3Q.view(2, 3, H, W) + upsampled.rows(0, H)
        worst = _relative(found.sr_B3nW, expected_B3nW)
        return error if worst <= error else worst  # NaN is the worst


def query_kernels(
    model: PCSR, grid: QueryGrid, dtype: torch.dtype, fused: bool = False, planar: bool = False
) -> QueryKernels:
    """Those that fit the scale; in Triton, or compiled by numba, if wanted and to be had."""
    single = all(p.dtype == torch.float32 for p in model.parameters())
    free = isinstance(model.upsampler(model.num_classes - 1), BilinearOnly)
    fits = single and not free and dtype in TILE and model.num_classes <= OUTPUTS
    if fused and fits and has_triton(model.mean.device.type):
        return FusedKernels(model, grid, dtype)
    return QueryKernels.of(model, grid, dtype, planar)


def has_triton(device_type: str) -> bool:
    """Whether Triton is installed and runs on such a device; on a CPU its interpreter does."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    runs = device_type == "cuda" or (device_type == "cpu" and interpreted)
    return runs and importlib.util.find_spec("triton") is not None


def split_width(width: int) -> tuple[int, int]:
    """A width padded to two powers of two: 74 to ``(64, 16)``, 58 to ``(64, 0)``."""
    padded = -(-width // OUTPUTS) * OUTPUTS
    first = 1 << (padded.bit_length() - 1)
    rest = padded - first
    if rest == 0:
        return first, 0
    second = 1 << (rest - 1).bit_length()
    return (2 * first, 0) if second == first else (first, second)


def _kernels() -> ModuleType:
    from pcsr_lightning.inference import triton_kernels

    return triton_kernels


def _products(dtype: torch.dtype) -> str:
    """How tensor cores multiply numbers of this type.

    Three TF32 products make one of float32 but for its last bits, which the check against the plain
    way must not see. IEEE products would run on ordinary cores, out of too few registers.
    """
    if dtype == torch.bfloat16:
        return "bf16"
    return "tf32" if uses_tf32("matmul") else "tf32x3"


def _padded(x: Tensor, *sizes: int) -> Tensor:
    """With zeros behind it, up to the given sizes of its first dimensions."""
    sizes = (*sizes, *x.shape[len(sizes) :])
    pad = [(0, size - there) for size, there in zip(sizes, x.shape, strict=True)]
    return F.pad(x.detach(), [side for sides in reversed(pad) for side in sides])


def _relative(a: Tensor, b: Tensor) -> float:
    """The largest difference by the largest value; NaN if there is one."""
    return float((a.float() - b.float()).abs().max() / b.float().abs().max())

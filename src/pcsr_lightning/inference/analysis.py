"""A picture looked at once and routed in any number of ways.

Legend: B batch, h w LR size, H W HR size, D feature channels, M classes,
n m HR rows and columns of a block, Q its queries, K those of one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference.blocks import Block, HoistedMLP, cut
from pcsr_lightning.inference.checks import (
    check_finite,
    check_picture,
    check_size,
    output_size,
)
from pcsr_lightning.inference.flops import Flops, ModelMacs, model_macs
from pcsr_lightning.inference.routing_choice import Routing
from pcsr_lightning.networks import PCSR, QueryGrid, enlarge, evaluating
from pcsr_lightning.routing import assign_adaptive, assign_by_k, class_costs, refine

QUERIES_CPU = 2**13
QUERIES_GPU = 2**20


@dataclass(frozen=True)
class UpscaleResult:
    """An enlarged picture and what it took.

    Attributes:
        image: ``(B, 3, H, W)``, float32 in [0, 1].
        assignment: ``(B, H, W)``, uint8: the class of each pixel, 0 the heaviest.
        flops: the cost of the whole batch.
        shares: the part of the pixels in each class, heaviest first.
    """

    image: Tensor
    assignment: Tensor
    flops: Flops
    shares: tuple[float, ...]


class Analysis:
    """Features of a picture, and the classifier's verdict on every pixel of its enlargement.

    The backbone and the classifier run once; :meth:`run` may then be called with any number of
    routings. Built by :meth:`of`.

    Attributes:
        model: the network.
        lr_B3hw: the picture, in the network's precision.
        size: ``(H, W)`` of the result.
        grid: which LR pixel each HR pixel asks.
        feat_BDhw: the backbone's features.
        macs: what the network's parts cost.

    Example:
        >>> analysis = Analysis.of(model, torch.rand(1, 3, 24, 32), scale=4)
        >>> for k in (-1.0, 0.0, 1.0):
        ...     print(k, analysis.run(Routing(k=k)).flops.gmacs)
    """

    def __init__(
        self, model: PCSR, lr_B3hw: Tensor, grid: QueryGrid, feat_BDhw: Tensor, macs: ModelMacs
    ) -> None:
        self.model, self.lr_B3hw, self.grid = model, lr_B3hw, grid
        self.size, self.feat_BDhw, self.macs = grid.size, feat_BDhw, macs

    @classmethod
    def of(
        cls,
        model: PCSR,
        image_B3hw: Tensor,
        scale: float | Sequence[float] = 4,
        size: tuple[int, int] | None = None,
    ) -> Analysis:
        """Runs the backbone.

        Args:
            model: on the picture's device; its mode (training or evaluation) does not matter and
                is left as it is.
            image_B3hw: pictures in [0, 1], floating point.
            scale: one number, or one for height and one for width.
            size: ``(H, W)`` of the result, instead of a scale.

        Raises:
            ConfigError: a picture, scale or size that cannot be used.
            PCSRError: the backbone gave NaN or infinite features.
        """
        check_picture(image_B3hw, model.mean.device)
        # int(): while torch traces, sizes are tensors.
        lr_size = (int(image_B3hw.shape[-2]), int(image_B3hw.shape[-1]))
        size = output_size(lr_size, scale) if size is None else check_size(lr_size, size)
        macs = model_macs(model)
        with torch.inference_mode(), evaluating(model):
            lr_B3hw = image_B3hw.to(model.upsampler(0).project.weight.dtype)
            feat_BDhw = model.features(lr_B3hw)
            check_finite(feat_BDhw, "the backbone's features")
            return cls(model, lr_B3hw, model.grid(lr_size, size), feat_BDhw, macs)

    @cached_property
    def logits(self) -> Tensor:
        """The classifier's output before the softmax, ``(B, M, H, W)``; computed when first asked.

        Raises:
            ConfigError: the network has a single upsampler and no classifier.
            PCSRError: NaN or infinite values.
        """
        if self.model.classifier is None:
            raise ConfigError("this network has one upsampler and no classifier: nothing to route")
        B, M = len(self.lr_B3hw), self.model.num_classes
        with torch.inference_mode():
            out_BMHW = self.feat_BDhw.new_empty(B, M, *self.size)
            classifier = HoistedMLP(self.model.classifier, self.grid)
            for block in cut(self.grid, B, self._block_queries):
                rows, columns = block.hr
                out_QM = classifier.dense(self._features(block), block)
                out_BMHW[:, :, rows, columns] = out_QM.view(B, *block.size, M).permute(0, 3, 1, 2)
            check_finite(out_BMHW, "the classifier's output")
        return out_BMHW

    def assign(self, routing: Routing) -> Tensor:
        """The class of each pixel: ``(B, H, W)``, uint8, 0 the heaviest.

        Raises:
            ConfigError: the routing names a class that the network does not have.
        """
        M, single = self.model.num_classes, routing.single
        if single is not None and single >= M:
            raise ConfigError(
                f"there is no class {single}: this network has {M}, from 0 (heaviest) to {M - 1}"
            )
        if single is not None or M == 1:
            shape = (len(self.lr_B3hw), *self.size)
            return torch.full(shape, single or 0, dtype=torch.uint8, device=self.feat_BDhw.device)
        logits_BMHW = self.logits
        if routing.mode == "adaptive":
            return assign_adaptive(logits_BMHW)
        (h, w), (H, W) = self.grid.lr_size, self.size
        costs_M = class_costs(self.macs.plain.branches((H / h, W / w)), routing.cost)
        return assign_by_k(logits_BMHW, costs_M, routing.k)

    def run(self, routing: Routing) -> UpscaleResult:
        """The enlarged picture under a routing. Each pixel meets the upsampler of its class only.

        Raises:
            ConfigError: as :meth:`assign`.
            PCSRError: the result would hold NaN or infinite values.
        """
        M = self.model.num_classes
        with torch.inference_mode():
            assignment_BHW = self.assign(routing)
            counts = torch.bincount(assignment_BHW.flatten(), minlength=M).tolist()
            sr_B3HW, projected = self._upsample(assignment_BHW, counts)
            check_finite(sr_B3HW, "the enlarged picture")
            if routing.refine:
                sr_B3HW = refine(sr_B3HW, assignment_BHW, M)
        flops = self.macs.flops(
            len(self.lr_B3hw) * self.grid.lr_size[0] * self.grid.lr_size[1],
            counts,
            projected,
            classified=routing.single is None and M > 1,
        )
        shares = tuple(count / sum(counts) for count in counts)
        # Outside of inference mode, so that callers get ordinary tensors.
        return UpscaleResult(sr_B3HW.clamp(0, 1), assignment_BHW.clone(), flops, shares)

    def _upsample(self, assignment_BHW: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """The base plus each pixel's residual, and how many LR pixels each class projected."""
        B = len(self.lr_B3hw)
        out_B3HW = enlarge(self.lr_B3hw.float(), self.size)
        branches = {
            j: HoistedMLP(self.model.upsampler(j), self.grid) for j, c in enumerate(counts) if c
        }
        projected = [0] * self.model.num_classes
        for block in cut(self.grid, B, self._block_queries):
            feat_BDhw, (rows, columns) = self._features(block), block.hr
            class_Q = assignment_BHW[:, rows, columns].flatten()
            residual_Q3 = feat_BDhw.new_empty(block.queries, 3)
            for j, branch in branches.items():
                queries_K = (class_Q == j).nonzero().squeeze(1)
                if not len(queries_K):
                    continue
                projected[j] += block.lr_pixels
                if len(queries_K) == block.queries:
                    residual_Q3 = branch.dense(feat_BDhw, block)
                else:
                    residual_K3 = branch.sparse(feat_BDhw, block, queries_K)
                    residual_Q3.index_copy_(0, queries_K, residual_K3)
            residual_B3nm = residual_Q3.view(B, *block.size, 3).permute(0, 3, 1, 2)
            out_B3HW[:, :, rows, columns] += residual_B3nm
        return out_B3HW, projected

    def _features(self, block: Block) -> Tensor:
        rows, columns = block.lr
        return self.feat_BDhw[:, :, rows, columns]

    @property
    def _block_queries(self) -> int:
        return QUERIES_CPU if self.feat_BDhw.device.type == "cpu" else QUERIES_GPU

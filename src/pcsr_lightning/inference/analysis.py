"""A picture looked at once and routed in any number of ways.

Legend: B batch, h w LR size, H W HR size, D feature channels, M classes, n HR rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference.checks import check_finite, check_picture, check_size, output_size
from pcsr_lightning.inference.engine import Engine
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.features import KeptRows, feature_rows, strip_rows
from pcsr_lightning.inference.flops import Flops, ModelMacs, model_macs
from pcsr_lightning.inference.input_rows import InputRows
from pcsr_lightning.inference.kernels import QueryKernels
from pcsr_lightning.inference.result import UpscaleResult, collect
from pcsr_lightning.networks import PCSR, QueryGrid
from pcsr_lightning.routing import RoutingConfig, make_policy


class Analysis:
    """Features of a picture, and the classifier's verdict on every pixel of its enlargement.

    The backbone and the classifier run once; :meth:`run` may then be called with any number of
    routings. The features are kept, ``4 * D`` bytes an LR pixel (208 for CARN): for a single
    routing :func:`upscale` does with less. Built by :meth:`of`.

    Attributes:
        model: the network.
        lr_B3hw: the picture, float32.
        size: ``(H, W)`` of the result.
        grid: which LR pixel each HR pixel asks.
        feat_BDhw: the backbone's features.
        macs: what the network's parts cost.

    Example:
        >>> analysis = Analysis.of(model, torch.rand(1, 3, 24, 32), scale=4)
        >>> for k in (-1.0, 0.0, 1.0):
        ...     print(k, analysis.run(RoutingConfig(k=k)).flops.gmacs)
    """

    def __init__(
        self,
        model: PCSR,
        lr_B3hw: Tensor,
        grid: QueryGrid,
        feat_BhwD: Tensor,
        macs: ModelMacs,
        rows: int,
    ) -> None:
        self.model, self.lr_B3hw, self.grid = model, lr_B3hw, grid
        self.size, self.macs = grid.size, macs
        self.feat_BDhw = feat_BhwD.permute(0, 3, 1, 2)
        kernels = QueryKernels.of(model, grid, feat_BhwD.dtype)
        self._engine = Engine(InputRows(lr_B3hw), grid, KeptRows(feat_BhwD), kernels, rows)

    @classmethod
    def of(
        cls,
        model: PCSR,
        image_B3hw: Tensor,
        scale: float | Sequence[float] = 4,
        size: tuple[int, int] | None = None,
        execution: Execution | None = None,
    ) -> Analysis:
        """Runs the backbone.

        Args:
            model: on the picture's device; its mode (training or evaluation) does not matter and
                is left as it is.
            image_B3hw: pictures in [0, 1], floating point.
            scale: one number, or one for height and one for width.
            size: ``(H, W)`` of the result, instead of a scale.
            execution: precision and strips.

        Raises:
            ConfigError: a picture, scale or size that cannot be used.
            PCSRError: the backbone gave NaN or infinite features.
        """
        execution = execution or Execution()
        check_picture(image_B3hw, model.mean.device)
        B, _, h, w = image_B3hw.shape
        size = output_size((h, w), scale) if size is None else check_size((h, w), size)
        dtype, macs = execution.dtype(model), model_macs(model)
        with torch.inference_mode():
            lr_B3hw = image_B3hw.float()
            x = InputRows(lr_B3hw).less(model.mean)
            source = feature_rows(model.backbone, model.backbone.halo, x, dtype)
            rows = strip_rows(execution, source, x, size[0] * size[1] / (h * w))
            feat_BhwD = lr_B3hw.new_empty(B, h, w, model.backbone.out_channels, dtype=dtype)
            for top, feat_BrwD in source.strips(rows):
                feat_BhwD[:, top : top + feat_BrwD.shape[1]] = feat_BrwD
            check_finite(feat_BhwD, "the backbone's features")
            return cls(model, lr_B3hw, model.grid((h, w), size), feat_BhwD, macs, rows)

    @cached_property
    def logits(self) -> Tensor:
        """The classifier's output before the softmax, ``(B, M, H, W)``; computed when first asked.

        Raises:
            ConfigError: the network has a single upsampler and no classifier.
            PCSRError: NaN or infinite values.
        """
        if self.model.classifier is None:
            raise ConfigError("this network has one upsampler and no classifier: nothing to route")
        out_BMHW = self.lr_B3hw.new_empty(len(self.lr_B3hw), self.model.num_classes, *self.size)

        def keep(top: int, rows_BMnW: Tensor) -> None:
            out_BMHW[:, :, top : top + rows_BMnW.shape[2]] = rows_BMnW

        with torch.inference_mode():
            self._engine.logits(keep)
        return out_BMHW

    def assign(self, routing: RoutingConfig) -> Tensor:
        """The class of each pixel: ``(B, H, W)``, uint8, 0 the heaviest.

        Raises:
            ConfigError: the routing names a class that the network does not have.
        """
        policy = make_policy(routing, self.macs.of_picture(self.grid.lr_size, self.size))
        if policy.fixed_class is not None:
            shape = (len(self.lr_B3hw), *self.size)
            return policy.assign_constant(shape, self.lr_B3hw.device)
        with torch.inference_mode():
            if policy.needs_whole_picture:
                return policy.assign(policy.score(self.logits))
            return policy.assign_pixels(self.logits)

    def run(self, routing: RoutingConfig) -> UpscaleResult:
        """The enlarged picture under a routing. Each pixel meets the upsampler of its class only.

        Raises:
            ConfigError: as :meth:`assign`.
            PCSRError: the result would hold NaN or infinite values.
        """
        policy = make_policy(routing, self.macs.of_picture(self.grid.lr_size, self.size))
        assignment_BHW = self.assign(routing)
        return collect(self._engine, self.macs, policy, assignment_BHW)

    def flops(self, routing: RoutingConfig, assignment_BHW: Tensor) -> Flops:
        """What :meth:`run` would cost: ``assignment_BHW`` is what :meth:`assign` gives.

        Raises:
            ConfigError: as :meth:`assign`.
        """
        policy = make_policy(routing, self.macs.of_picture(self.grid.lr_size, self.size))
        lr_pixels = len(self.lr_B3hw) * self.grid.lr_size[0] * self.grid.lr_size[1]
        done = self._engine.counted(policy, assignment_BHW)
        return done.flops(self.macs, lr_pixels, classified=policy.fixed_class is None)

    def dense(self, j: int) -> Tensor:
        """Class ``j``'s enlargement of all pixels, neither refined nor clamped: ``(B, 3, H, W)``.

        Raises:
            ConfigError: there is no such class.
        """
        routing = RoutingConfig(fixed_class=j, refine=False)
        policy = make_policy(routing, self.macs.of_picture(self.grid.lr_size, self.size))
        return collect(self._engine, self.macs, policy, clamp=False).image

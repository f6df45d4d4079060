"""One picture, any number of routings: no pixel meets the same upsampler twice.

The backbone and the classifier run once. Each class keeps the pixels it has computed, so that the
next routing pays only for what changes: the classes, the pixels that are new to theirs, and the
seams.

Legend: B batch, h w LR size, H W HR size, D feature channels, M classes, r LR rows and n HR rows of
a strip.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference.checks import check_finite, check_picture, check_size, output_size
from pcsr_lightning.inference.class_images import NO_CLASS, ClassImages
from pcsr_lightning.inference.engine import Engine, Progress, part_of
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.features import KeptRows, feature_rows, strip_rows, uses_numba
from pcsr_lightning.inference.flops import model_macs
from pcsr_lightning.inference.fused_queries import query_kernels
from pcsr_lightning.inference.input_rows import InputRows
from pcsr_lightning.inference.kernels import Strip
from pcsr_lightning.inference.output_rows import RefinedRows, UpsampledRows
from pcsr_lightning.inference.result import UpscaleResult
from pcsr_lightning.inference.time_budget import TimedPictures
from pcsr_lightning.networks import PCSR, BranchMacs, unwrapped
from pcsr_lightning.routing import RoutingConfig, RoutingPolicy, make_policy


class Session:
    """The features, logits and upscaled pixels of a picture, for any number of routings.

    The backbone runs here, the classifier once a routing asks for it, and an upsampler on the
    pixels that a routing sends to it. For a single routing :func:`upscale` takes less memory: a
    session keeps ``4 * D`` bytes for an LR pixel (208 for CARN) and up to ``21 * M + 1`` for an HR
    pixel. What ``progress`` raises ends a call; what was finished until then is kept. Not for two
    threads at a time.

    Args:
        model: on the picture's device; its mode (training or evaluation) does not matter and is
            left as it is. Later changes to its weights are not seen.
        image_B3hw: pictures in [0, 1], floating point.
        scale: one number, or one for height and one for width.
        size: ``(H, W)`` of the result, instead of a scale.
        execution: precision and strips.
        unseen_hw: pixels whose result nobody sees, bool; they go to the lightest class.
        progress: called with the part of the backbone's work that is done, after each strip.

    Raises:
        ConfigError: a picture, scale or size that cannot be used.
        PCSRError: the backbone gave NaN or infinite features.

    Attributes:
        model: the network.
        lr_B3hw: the picture, float32.
        lr_size: ``(h, w)``.
        size: ``(H, W)``.
        grid: which LR pixel each HR pixel asks.
        macs: what the picture costs.
        feature_seconds: what the backbone took.

    Example:
        >>> session = Session(model, torch.rand(1, 3, 24, 32), scale=4)
        >>> for k in (-1.0, 0.0, 1.0):
        ...     print(k, session.run(RoutingConfig(k=k)).flops.gmacs)
    """

    def __init__(
        self,
        model: PCSR,
        image_B3hw: Tensor,
        scale: float | Sequence[float] = 4,
        *,
        size: tuple[int, int] | None = None,
        execution: Execution | None = None,
        unseen_hw: Tensor | None = None,
        progress: Progress | None = None,
    ) -> None:
        check_picture(image_B3hw, model.mean.device)
        self.model, self.lr_B3hw = unwrapped(model), image_B3hw.float()
        self.lr_size = (int(image_B3hw.shape[2]), int(image_B3hw.shape[3]))
        self.size = (
            output_size(self.lr_size, scale) if size is None else check_size(self.lr_size, size)
        )
        self._parts, self._execution = model_macs(model), execution or Execution()
        self.macs = self._parts.of_picture(self.lr_size, self.size)
        self._images: ClassImages | None = None
        self._logits: Tensor | None = None
        self._score: dict[tuple[str, str], Tensor] = {}
        self._unseen_HW: Tensor | None = None
        with torch.inference_mode():
            self.grid = model.grid(self.lr_size, self.size)
            if unseen_hw is not None:
                unseen_hw = unseen_hw.to(self.lr_B3hw.device)
                self._unseen_HW = unseen_hw[self.grid.rows_H][:, self.grid.cols_W]
            self._upsampled = UpsampledRows(InputRows(self.lr_B3hw), self.size)
            start = time.perf_counter()
            self._features, self._engine = self._run_backbone(self._execution, unseen_hw, progress)
            self.feature_seconds = time.perf_counter() - start

    @property
    def num_classes(self) -> int:
        """``M``."""
        return self.model.num_classes

    @property
    def branch_macs(self) -> BranchMacs:
        """Of the parts, un-hoisted as the paper counts; a pixel's share does not depend on others'.

        :attr:`macs` has what is really executed.
        """
        return self._parts.plain

    @property
    def feat_BDhw(self) -> Tensor:
        """The backbone's features."""
        return self._features.feat_BhwD.permute(0, 3, 1, 2)

    @property
    def bytes(self) -> int:
        """What is kept at most, the logits and a budget's scores included."""
        M, pixels = self.num_classes, len(self.lr_B3hw) * self.size[0] * self.size[1]
        return self.feature_bytes + pixels * (13 * M + 4 * M + 4 * M + 1)

    @property
    def feature_bytes(self) -> int:
        """What of it are features."""
        return self._features.feat_BhwD.numel() * self._features.feat_BhwD.itemsize

    @property
    def logits(self) -> Tensor:
        """The classifier's output before the softmax, ``(B, M, H, W)``; computed when first asked.

        Raises:
            ConfigError: the network has a single upsampler and no classifier.
            PCSRError: NaN or infinite values.
        """
        return self._classify(None)

    def assign(self, routing: RoutingConfig, progress: Progress | None = None) -> Tensor:
        """The class of each pixel: ``(B, H, W)``, uint8, 0 the heaviest.

        Raises:
            ConfigError: the routing names a class that the network does not have.
        """
        policy = self.policy(routing)
        shape, device = (len(self.lr_B3hw), *self.size), self.lr_B3hw.device
        with torch.inference_mode():
            if policy.fixed_class is not None:
                class_BHW = policy.assign_constant(shape, device)
            elif policy.needs_whole_picture:
                logits_BMHW = self._classify(progress).to(device)
                class_BHW = policy.assign(self._scores(policy, logits_BMHW))
                if policy.per_lr_pixel:
                    class_BHW = self._engine.lr_pixels.expand(class_BHW, self._whole)
            else:
                class_BHW = policy.assign_pixels(self._classify(progress).to(device))
            if self._unseen_HW is not None:
                class_BHW = class_BHW.masked_fill(self._unseen_HW, self.num_classes - 1)
        return class_BHW.clone()  # an ordinary tensor

    def run(self, routing: RoutingConfig, progress: Progress | None = None) -> UpscaleResult:
        """What :func:`pcsr_lightning.upscale` gives under a routing.

        Args:
            routing: any.
            progress: called with the part of the work that is done, rising to 1.

        Raises:
            ConfigError: the routing names a class that the network does not have.
            PCSRError: the classifier or an upsampler gave NaN or infinite values.
        """
        policy = self.policy(routing)
        class_BHW = self.assign(routing, part_of(progress, 0.0, 0.3))
        return self._result(policy, class_BHW, part_of(progress, 0.3, 1.0))

    def policy(self, routing: RoutingConfig) -> RoutingPolicy:
        """The rule of a routing for this picture.

        Raises:
            ConfigError: the routing names a class that the network does not have.
        """
        if not routing.rule.timed:
            return make_policy(routing, self.macs)
        # The time that ``upscale`` would take: here less is computed.
        timed = TimedPictures(self.model, self.lr_size, self.size, routing, self._execution)
        return make_policy(routing, timed.macs)

    def run_classes(self, class_BHW: Tensor) -> UpscaleResult:
        """What comes out if pixels take these classes, whoever chose them; seams are left.

        The cost is that of a classifier that had chosen them.

        Args:
            class_BHW: uint8, 0 the heaviest.
        """
        policy = make_policy(RoutingConfig(k=0, refine=False), self.macs)
        return self._result(policy, class_BHW, None)

    def each_strip(
        self, work: Callable[[Strip, Tensor], None], progress: Progress | None = None
    ) -> None:
        """Calls ``work`` with every strip and its features ``(B, r, w, D)``, from top to bottom."""

        def do(strip: Strip, feat_BrwD: Tensor) -> Callable[[], None]:
            work(strip, feat_BrwD)
            return lambda: None

        with torch.inference_mode():
            self._engine.each_strip(do, progress)

    def compute(self, strip: Strip, feat_BrwD: Tensor, class_BnW: Tensor) -> None:
        """Computes and keeps pixels of a strip, each by the upsampler of its class.

        Args:
            strip: from :meth:`each_strip`, like its features.
            feat_BrwD: its features.
            class_BnW: uint8; :data:`~pcsr_lightning.inference.class_images.NO_CLASS` for pixels
                that are not to be computed.
        """
        kernels, rows = self._engine.kernels, slice(strip.hr_top, strip.hr_bottom)
        class_BQ = kernels.to_subpixel_major(class_BnW[:, None], strip)[:, 0]
        residual_B3Q = kernels.residual(feat_BrwD, strip, class_BQ)
        # Where no class was asked, the residual holds whatever was in memory.
        new_B3nW = kernels.to_rows(residual_B3Q, strip)
        new_B3nW = new_B3nW.masked_fill((class_BnW == NO_CLASS)[:, None], 0)
        check_finite(new_B3nW, "the upscaled picture")
        new_B3nW += self._upsampled.rows(strip.hr_top, strip.hr_bottom)
        self.class_images.put(rows, class_BnW, new_B3nW)

    def compute_every_class(self) -> None:
        """Every pixel by every upsampler; afterwards a routing only selects."""

        def compute(strip: Strip, feat_BrwD: Tensor) -> None:
            for j in range(self.num_classes):
                done_BnW = self.class_images.done_MBHW[j, :, strip.hr_top : strip.hr_bottom]
                if not bool(done_BnW.all()):
                    wanted_BnW = torch.full_like(done_BnW, j, dtype=torch.uint8)
                    self.compute(strip, feat_BrwD, wanted_BnW.masked_fill(done_BnW, NO_CLASS))

        self.each_strip(compute)

    @property
    def class_images(self) -> ClassImages:
        """Each class's upscaling, as far as it has been computed."""
        if self._images is None:
            shape = (self.num_classes, len(self.lr_B3hw), *self.size)
            self._images = ClassImages(shape, self.lr_B3hw.device)
        return self._images

    def _run_backbone(
        self, execution: Execution, unseen_hw: Tensor | None, progress: Progress | None
    ) -> tuple[KeptRows, Engine]:
        """The features, and what works on them strip by strip."""
        model, (h, w), (H, W) = self.model, self.lr_size, self.size
        lr, dtype = InputRows(self.lr_B3hw, unseen_hw=unseen_hw), execution.dtype(model)
        x, fused = lr.less(model.mean), execution.is_fused(lr.device)
        planar = uses_numba(model.backbone, execution, len(lr) * h * w, len(lr))
        source = feature_rows(model.backbone, model.backbone.halo, x, dtype, fused, planar)
        rows = strip_rows(execution, source, x, H * W / (h * w))
        shape = (len(lr), h, w, model.backbone.out_channels)
        feat_BhwD = torch.empty(shape, dtype=dtype, device=lr.device)
        for top, feat_BrwD in execution.each(source.strips(rows), lr.device.type):
            feat_BhwD[:, top : top + feat_BrwD.shape[1]] = feat_BrwD
            if progress is not None:
                progress((top + feat_BrwD.shape[1]) / h)
        check_finite(feat_BhwD, "the backbone's features")
        features = KeptRows(feat_BhwD)
        kernels = query_kernels(model, self.grid, dtype, fused, planar)
        return features, Engine(lr, self.grid, features, kernels, rows, execution)

    def _classify(self, progress: Progress | None) -> Tensor:
        if self.model.classifier is None:
            raise ConfigError("this network has one upsampler and no classifier: nothing to route")
        if self._logits is None:
            B, device = len(self.lr_B3hw), self.lr_B3hw.device
            out_BMHW = torch.empty(B, self.num_classes, *self.size, device=device)

            def keep(top: int, rows_BMnW: Tensor) -> None:
                out_BMHW[:, :, top : top + rows_BMnW.shape[2]] = rows_BMnW

            with torch.inference_mode():
                self._engine.logits(keep, progress)
            self._logits = out_BMHW
        return self._logits

    def _scores(self, policy: RoutingPolicy, logits_BMHW: Tensor) -> Tensor:
        # A slider of budgets asks for the same scores again and again.
        key = (policy.name, policy.config.cost.value)
        if key not in self._score:
            score = policy.score(logits_BMHW)
            if policy.per_lr_pixel:
                score = self._engine.lr_pixels.mean(score, self._whole)
            self._score = {key: score}
        return self._score[key]

    @property
    def _whole(self) -> Strip:
        """The whole picture as one strip."""
        return Strip(0, self.lr_size[0], 0, self.size[0])

    def _result(
        self, policy: RoutingPolicy, class_BHW: Tensor, progress: Progress | None
    ) -> UpscaleResult:
        with torch.inference_mode():
            image_B3HW = self._upscale(policy, class_BHW, progress)
            done = self._engine.counted(policy, class_BHW)
        flops = done.flops(self._parts, self.lr_B3hw[:, 0].numel(), policy)
        return UpscaleResult(image_B3HW, class_BHW, flops, done.shares)

    def _upscale(
        self, policy: RoutingPolicy, class_BHW: Tensor, progress: Progress | None
    ) -> Tensor:
        """Every pixel from its own class, seams smoothed, in [0, 1]: ``(B, 3, H, W)``."""
        (H, W), (h, w) = self.size, self.lr_size
        images = self.class_images
        refined = RefinedRows(
            H, self._engine.kernels.refine if policy.config.refines((H / h, W / w)) else None
        )
        with torch.inference_mode(False):
            out_B3HW = torch.empty(len(class_BHW), 3, H, W, device=class_BHW.device)

        def upscale(strip: Strip, feat_BrwD: Tensor) -> None:
            rows = slice(strip.hr_top, strip.hr_bottom)
            class_BnW = class_BHW[:, rows]
            missing_BnW = images.missing(rows, class_BnW)
            if missing_BnW is not None:
                self.compute(strip, feat_BrwD, missing_BnW)
            picked_B3nW = images.pick(rows, class_BnW)
            top, done_B3nW = refined.push(picked_B3nW, class_BnW)
            bottom = top + done_B3nW.shape[2]
            torch.clamp(done_B3nW, 0, 1, out=out_B3HW[:, :, top:bottom])

        self.each_strip(upscale, progress)
        return out_B3HW

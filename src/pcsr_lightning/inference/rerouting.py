"""One picture under one routing after another: no pixel meets the same upsampler twice.

The backbone and the classifier run once. Each class keeps its own enlargement, filled in where a
routing sends pixels to it, so that the next routing pays only for what changed: the policy, the
pixels that are new to their class, and the seams.

Legend: h w LR size, H W HR size, D feature channels, M classes, r LR rows and n HR rows of a strip.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsr_lightning.inference.checks import check_finite, check_picture, check_size
from pcsr_lightning.inference.engine import Engine, Progress
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.features import KeptRows, feature_rows, strip_rows
from pcsr_lightning.inference.flops import model_macs
from pcsr_lightning.inference.input_rows import InputRows
from pcsr_lightning.inference.kernels import QueryKernels, Strip
from pcsr_lightning.inference.output_rows import EnlargedRows, RefinedRows
from pcsr_lightning.inference.result import UpscaleResult
from pcsr_lightning.networks import PCSR
from pcsr_lightning.routing import RoutingConfig, RoutingPolicy, make_policy

NOBODY = 255
"""The class of a pixel that has nothing left to be done."""


@dataclass(frozen=True)
class AllHeavy:
    """What sending every pixel to the heaviest upsampler gave and took.

    Attributes:
        image_3HW: in [0, 1], not refined: there are no seams.
        seconds: the upsampler at every pixel, the features being there.
    """

    image_3HW: Tensor
    seconds: float


class Rerouter:
    """A picture's features, logits and finished pixels.

    It keeps ``4 * D`` bytes for an LR pixel and up to ``21 * M + 1`` for an HR pixel. What
    ``progress`` raises ends a call; what was finished until then is kept. Not for two threads at a
    time.

    Args:
        model: on the picture's device.
        image_13hw: in [0, 1], floating point.
        size: ``(H, W)`` of the result.
        progress: called with the part of the backbone's work that is done, after each strip.

    Raises:
        ConfigError: a picture or size that cannot be used.
        PCSRError: the backbone gave NaN or infinite features.

    Attributes:
        lr_size: ``(h, w)``.
        size: ``(H, W)``.
        feature_seconds: what the backbone took.

    Example:
        >>> rerouter = Rerouter(model, torch.rand(1, 3, 24, 32), (96, 128))
        >>> for budget in (0.9, 0.8, 0.7):
        ...     image = rerouter.run(RoutingConfig(budget=budget)).image
    """

    def __init__(
        self,
        model: PCSR,
        image_13hw: Tensor,
        size: tuple[int, int],
        progress: Progress | None = None,
    ) -> None:
        check_picture(image_13hw, model.mean.device)
        self.lr_size = (int(image_13hw.shape[2]), int(image_13hw.shape[3]))
        self.size = check_size(self.lr_size, size)
        self._macs, self._model = model_macs(model), model
        self._logits: Tensor | None = None
        self._evidence: dict[tuple[str, str], Tensor] = {}
        self._heavy_seconds = 0.0
        with torch.inference_mode():
            self._lr = InputRows(image_13hw.float())
            start = time.perf_counter()
            feat_1hwD = self._features(progress)
            self.feature_seconds = time.perf_counter() - start
            self._grid = model.grid(self.lr_size, self.size)
            self._kernels = QueryKernels.of(model, self._grid, feat_1hwD.dtype)
            self._kept = KeptRows(feat_1hwD)
            first = torch.searchsorted(self._grid.rows_H.cpu(), torch.arange(self.lr_size[0] + 1))
            self._hr_rows: list[int] = first.tolist()
            shape = (model.num_classes, *self.size)
            device = image_13hw.device
            # Zeros are written, so that memory is taken here and not in the midst of a run.
            self._image_M3HW = torch.zeros(shape[0], 3, *shape[1:], device=device).fill_(0)
            self._done_MHW = torch.zeros(shape, dtype=torch.bool, device=device)
            self._timed_HW = torch.zeros(self.size, dtype=torch.bool, device=device)

    @property
    def num_classes(self) -> int:
        """``M``."""
        return len(self._done_MHW)

    @property
    def bytes(self) -> int:
        """What is kept, the logits and a budget's evidence included."""
        pixels, M = self.size[0] * self.size[1], self.num_classes
        return self._feature_bytes + pixels * (13 * M + 4 * M + 4 * (M - 1) + 1)

    @property
    def heavy_bytes(self) -> int:
        """What of it :meth:`all_heavy` needs: the features and its result."""
        return self._feature_bytes + 12 * self.size[0] * self.size[1]

    @property
    def _feature_bytes(self) -> int:
        return self._kept.feat_BhwD.numel() * self._kept.feat_BhwD.itemsize

    def run(self, routing: RoutingConfig, progress: Progress | None = None) -> UpscaleResult:
        """What :func:`pcsr_lightning.upscale` gives under a routing.

        Args:
            routing: any.
            progress: called with the part of the work that is done, rising to 1.

        Raises:
            ConfigError: the routing names a class that the network does not have.
            PCSRError: the classifier or an upsampler gave NaN or infinite values.
        """
        policy = make_policy(routing, self._macs.of_picture(self.lr_size, self.size))
        with torch.inference_mode():
            class_HW = self._classes(policy, _part(progress, 0.0, 0.3))
            image_3HW = self._enlarge(policy, class_HW, _part(progress, 0.3, 1.0))
            engine = Engine(self._lr, self._grid, self._kept, self._kernels, self._rows)
            done = engine.counted(policy, class_HW[None])
        lr_pixels = self.lr_size[0] * self.lr_size[1]
        flops = done.flops(self._macs, lr_pixels, classified=policy.fixed_class is None)
        shares = tuple(count / class_HW.numel() for count in done.counts_M)
        return UpscaleResult(image_3HW[None], class_HW[None], flops, shares)

    def all_heavy(self, progress: Progress | None = None) -> AllHeavy:
        """The heaviest upsampler at every pixel, all of them computed for the sake of its time.

        Pixels that no run has asked of it come first: they are what a larger budget has to pay for,
        so that soon it has little to pay. A call that was stopped is taken up where it was.
        Afterwards no routing has heavy pixels to pay for.
        """
        done = 0
        with torch.inference_mode():
            enlarged = EnlargedRows(self._lr, self.size)
            for known in (False, True):
                for strip in self._strips():
                    rows = slice(strip.hr_top, strip.hr_bottom)
                    left_nW = ~self._timed_HW[rows]
                    if not known:
                        left_nW &= ~self._done_MHW[0, rows]
                    if bool(left_nW.any()):
                        start = time.perf_counter()
                        self._fill(strip, (~left_nW).to(torch.uint8) * NOBODY, enlarged)
                        self._heavy_seconds += time.perf_counter() - start
                        self._timed_HW[rows] |= left_nW
                    done += strip.bottom - strip.top
                    if progress is not None:
                        progress(done / (2 * self.lr_size[0]))
        with torch.inference_mode(False):
            image_3HW = self._image_M3HW[0].clamp(0, 1)
        return AllHeavy(image_3HW, self._heavy_seconds)

    def _features(self, progress: Progress | None) -> Tensor:
        """The backbone's features, ``(1, h, w, D)``."""
        model, execution, (h, w), (H, W) = self._model, Execution(), self.lr_size, self.size
        dtype = execution.dtype(model)
        x = self._lr.less(model.mean)
        source = feature_rows(model.backbone, model.backbone.halo, x, dtype)
        self._rows = strip_rows(execution, source, x, H * W / (h * w))
        shape = (1, h, w, model.backbone.out_channels)
        feat_1hwD = torch.empty(shape, dtype=dtype, device=model.mean.device)
        for top, feat_1rwD in source.strips(self._rows):
            feat_1hwD[:, top : top + feat_1rwD.shape[1]] = feat_1rwD
            if progress is not None:
                progress((top + feat_1rwD.shape[1]) / h)
        check_finite(feat_1hwD, "the backbone's features")
        return feat_1hwD

    def _classes(self, policy: RoutingPolicy, progress: Progress | None) -> Tensor:
        """The class of each pixel, ``(H, W)``."""
        if policy.fixed_class is not None:
            return policy.assign_constant(self.size, self._lr.device)
        if self._logits is None:
            self._logits = self._classify(progress)
        if not policy.needs_whole_picture:
            return policy.assign_pixels(self._logits)[0]
        # A slider of budgets asks for the same evidence again and again.
        key = (policy.config.mode, policy.config.cost)
        if key not in self._evidence:
            self._evidence = {key: policy.score(self._logits)}
        return policy.assign(self._evidence[key])[0]

    def _classify(self, progress: Progress | None) -> Tensor:
        out_1MHW = torch.empty(1, self.num_classes, *self.size, device=self._lr.device)

        def keep(top: int, rows_1MnW: Tensor) -> None:
            out_1MHW[:, :, top : top + rows_1MnW.shape[2]] = rows_1MnW

        parts = (self._lr, self._grid, self._kept, self._kernels, self._rows)
        Engine(*parts, progress=progress).logits(keep)
        return out_1MHW

    def _enlarge(
        self, policy: RoutingPolicy, class_HW: Tensor, progress: Progress | None
    ) -> Tensor:
        """Every pixel from its own class, seams smoothed, in [0, 1]: ``(3, H, W)``."""
        (H, W), (h, w) = self.size, self.lr_size
        refined = RefinedRows(H, self.num_classes, policy.config.refines((H / h, W / w)))
        enlarged = EnlargedRows(self._lr, self.size)
        with torch.inference_mode(False):
            out_3HW = torch.empty(3, H, W, device=self._lr.device)
        for strip in self._strips():
            rows = slice(strip.hr_top, strip.hr_bottom)
            class_nW = class_HW[rows]
            known_nW = self._done_MHW[-1, rows]
            for j in range(self.num_classes - 1):
                known_nW = torch.where(class_nW == j, self._done_MHW[j, rows], known_nW)
            if not bool(known_nW.all()):
                self._fill(strip, class_nW.masked_fill(known_nW, NOBODY), enlarged)
            picked_3nW = self._image_M3HW[-1, :, rows]
            for j in range(self.num_classes - 1):
                picked_3nW = torch.where(class_nW == j, self._image_M3HW[j, :, rows], picked_3nW)
            top, rows_13nW = refined.push(picked_3nW[None], class_nW[None])
            torch.clamp(rows_13nW[0], 0, 1, out=out_3HW[:, top : top + rows_13nW.shape[2]])
            if progress is not None:
                progress(strip.bottom / h)
        return out_3HW

    def _fill(self, strip: Strip, class_nW: Tensor, enlarged: EnlargedRows) -> None:
        """Computes the pixels of a strip that have a class, each by its own upsampler."""
        feat_1rwD = self._kept.feat_BhwD[:, strip.top : strip.bottom]
        class_1Q = self._kernels.to_subpixel_major(class_nW[None, None], strip)[:, 0]
        residual_13Q = self._kernels.residual(feat_1rwD, strip, class_1Q)
        # Where nobody was asked, the residual holds whatever was in memory.
        new_3nW = self._kernels.to_rows(residual_13Q, strip)[0]
        new_3nW = new_3nW.masked_fill(class_nW == NOBODY, 0)
        check_finite(new_3nW, "the enlarged picture")
        new_3nW += enlarged.rows(strip.hr_top, strip.hr_bottom)[0]
        rows = slice(strip.hr_top, strip.hr_bottom)
        for j in range(self.num_classes):
            mine_nW = class_nW == j
            if bool(mine_nW.any()):
                kept_3nW = self._image_M3HW[j, :, rows]
                torch.where(mine_nW, new_3nW, kept_3nW, out=kept_3nW)
                self._done_MHW[j, rows] |= mine_nW

    def _strips(self) -> Iterator[Strip]:
        h = self.lr_size[0]
        for top in range(0, h, self._rows):
            bottom = min(h, top + self._rows)
            yield Strip(top, bottom, self._hr_rows[top], self._hr_rows[bottom])


def _part(progress: Progress | None, start: float, stop: float) -> Progress | None:
    """The progress of a step as that of the whole."""
    if progress is None:
        return None
    return lambda part: progress(start + (stop - start) * part)

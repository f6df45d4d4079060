"""The fast way through a trained PCSR: strips of rows from the picture to the result.

Strips of LR rows come out of the backbone, the classifier runs on their queries, each query goes
through the upsampler of its class, and finished HR rows go to a sink. Nothing but the picture,
the result and one strip is in memory. Where classes depend on the whole picture (adaptive, budget),
a first pass scores all pixels (`routing.scores`), and the features are kept too as far as memory
allows.

Legend: B batch, h w LR size, H W HR size, D feature channels, M classes, r LR rows and n HR rows of
a strip, Q its queries in subpixel-major order, c scores of a pixel.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor

from pcsr_lightning.errors import PCSRError
from pcsr_lightning.inference.checks import check_finite
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.features import FeatureRows, KeptRows
from pcsr_lightning.inference.flops import Flops, ModelMacs
from pcsr_lightning.inference.fused_queries import FusedKernels, RoutedRows
from pcsr_lightning.inference.input_rows import InputRows
from pcsr_lightning.inference.kernels import QueryKernels, Strip
from pcsr_lightning.inference.lr_pixels import LRPixels
from pcsr_lightning.inference.output_rows import RefinedRows, UpsampledRows
from pcsr_lightning.networks import QueryGrid
from pcsr_lightning.routing import RoutingPolicy
from pcsr_lightning.routing.scores import ThresholdAssigner, first_pass

_log = logging.getLogger(__name__)

_OUT_OF_MEMORY = (
    "can't allocate memory", "not enough memory", "bad_alloc",
    # oneDNN does not say why; where it has another reason, smaller strips do not help it either.
    "could not create a primitive", "could not execute a primitive",
)  # fmt: skip

EASY = 30.0
"""The logit of the lightest class at pixels that nobody sees: no rule finds others easier."""

RowSink = Callable[[int, Tensor], None]
"""Takes the first row and rows that follow, in order."""

Progress = Callable[[float], None]
"""Takes the part of the work that is done, in (0, 1], rising, 1 at the end."""


def part_of(progress: Progress | None, start: float, stop: float) -> Progress | None:
    """The progress of one step, which is the part from ``start`` to ``stop`` of all work."""
    if progress is None:
        return None
    return lambda part: progress(start * (1 - part) + stop * part)


class Executed:
    """What a run did.

    Attributes:
        counts_M: HR pixels of each class.
        projected_M: LR pixels on which each class's first layer ran: those of the strips in which
            it has a pixel.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts_M = [0] * num_classes
        self.projected_M = [0] * num_classes

    @property
    def shares(self) -> tuple[float, ...]:
        """The part of the pixels in each class, heaviest first."""
        return tuple(count / sum(self.counts_M) for count in self.counts_M)

    def add(self, counts_M: Sequence[int], lr_pixels: int, every_class: bool) -> None:
        """A strip of so many LR pixels is done."""
        for j, count in enumerate(counts_M):
            self.counts_M[j] += count
            self.projected_M[j] += lr_pixels if count or every_class else 0

    def flops(self, macs: ModelMacs, lr_pixels: int, policy: RoutingPolicy) -> Flops:
        """Its cost."""
        classified = policy.fixed_class is None
        return macs.flops(lr_pixels, self.counts_M, self.projected_M, classified)


class Engine:
    """One batch of pictures on its way through a model.

    Args:
        lr: the pictures, ``(B, 3, h, w)``, float32.
        grid: which LR pixel each HR pixel asks.
        features: the backbone's features of them, strip by strip.
        kernels: upsamplers and classifier.
        rows: LR rows of a strip.
        execution: its precision counts.
        keep: whether the features are kept between two passes, or computed again.
    """

    def __init__(
        self,
        lr: InputRows,
        grid: QueryGrid,
        features: FeatureRows,
        kernels: QueryKernels,
        rows: int,
        execution: Execution,
        keep: bool = False,
    ) -> None:
        self.lr, self.grid, self.kernels, self.rows = lr, grid, kernels, rows
        self.features, self._keep, self._execution = features, keep, execution
        h = grid.lr_size[0]
        # Nearest never falls, and at scales of 1 and more it misses no LR row.
        first_rows = torch.searchsorted(grid.rows_H.cpu(), torch.arange(h + 1))
        self._hr_rows: list[int] = first_rows.tolist()

    @cached_property
    def lr_pixels(self) -> LRPixels:
        """For rules that decide those."""
        return LRPixels(self.grid)

    def logits(self, sink: RowSink, progress: Progress | None = None) -> None:
        """The classifier's output at every query; ``sink`` takes rows ``(B, M, n, W)``."""

        def look(strip: Strip, feat_BrwD: Tensor) -> Callable[[], None]:
            rows = self.kernels.to_rows(self.strip_logits(feat_BrwD, strip), strip)
            return lambda: sink(strip.hr_top, rows)

        self.each_strip(look, progress)

    def run(
        self,
        policy: RoutingPolicy,
        image: RowSink,
        classes: RowSink,
        progress: Progress | None = None,
        bits: int | None = None,
    ) -> Executed:
        """Upscales the pictures.

        Args:
            policy: which class each pixel takes.
            image: takes rows ``(B, 3, n, W)``, float32, not clamped; or integers, see ``bits``.
            classes: takes rows ``(B, n, W)``, uint8; some time before their pixels.
            progress: called after every strip with the part of the work that is done. What it
                raises ends the run.
            bits: 8 or 16: kernels that round by the way give rows of integers.

        Raises:
            PCSRError: NaN or infinite values, or not enough memory for a single row.
        """
        known: Tensor | ThresholdAssigner | None = None
        if policy.needs_whole_picture:
            known = self._first_pass(policy, part_of(progress, 0.0, 0.5))
            progress = part_of(progress, 0.5, 1.0)
        M, (H, W), (h, w) = policy.num_classes, self.grid.size, self.grid.lr_size
        refining = policy.config.refines((H / h, W / w))
        refined = RefinedRows(H, partial(self.kernels.refine, bits=bits) if refining else None)
        upsampled = UpsampledRows(self.lr, self.grid.size)
        done = Executed(M)
        every_class = known is not None and policy.charges_every_class and _mixed(known)

        def upscale(strip: Strip, feat_BrwD: Tensor) -> Callable[[], None]:
            rows: RoutedRows | None = None
            if isinstance(self.kernels, FusedKernels):
                whole = None if refining else bits
                rows = self._fused(self.kernels, policy, known, strip, feat_BrwD, upsampled, whole)
            if rows is None:
                rows = self._rows(policy, known, strip, feat_BrwD, upsampled, every_class)
            class_BnW = rows.class_BnW
            top, finished = refined.push(rows.sr_B3nW, class_BnW)

            def deliver() -> None:
                done.add(rows.counts_M, feat_BrwD[..., 0].numel(), every_class)
                if isinstance(known, ThresholdAssigner):
                    known.commit()
                classes(strip.hr_top, class_BnW)
                image(top, finished)

            return deliver

        self.each_strip(upscale, progress)
        return done

    def _rows(
        self,
        policy: RoutingPolicy,
        known: Tensor | ThresholdAssigner | None,
        strip: Strip,
        feat_BrwD: Tensor,
        upsampled: UpsampledRows,
        every_class: bool,
    ) -> RoutedRows:
        """The HR rows of a strip, step by step."""
        class_BQ = self._classes(policy, known, strip, feat_BrwD)
        unseen_Q = self._unseen(strip)
        if unseen_Q is not None:
            class_BQ = class_BQ.masked_fill(unseen_Q, policy.num_classes - 1)
        counts_M = class_counts(class_BQ, policy.num_classes)
        residual_B3Q = self.kernels.residual(feat_BrwD, strip, class_BQ, every_class)
        sr_B3nW = upsampled.rows(strip.hr_top, strip.hr_bottom)
        sr_B3nW += self.kernels.to_rows(residual_B3Q, strip)
        check_finite(sr_B3nW, "the upscaled picture")
        class_BnW = self.kernels.to_rows(class_BQ[:, None], strip)[:, 0]
        return RoutedRows(sr_B3nW, class_BnW, counts_M)

    def _fused(
        self,
        kernels: FusedKernels,
        policy: RoutingPolicy,
        known: Tensor | ThresholdAssigner | None,
        strip: Strip,
        feat_BrwD: Tensor,
        upsampled: UpsampledRows,
        bits: int | None,
    ) -> RoutedRows | None:
        """The same by one kernel; ``None`` where it cannot be used."""
        if self._unseen(strip) is not None:
            return None
        free = known is None and policy.fixed_class is None
        biases = policy.logit_biases() if free else None
        class_BnW = None
        if biases is None:
            class_BQ = self._classes(policy, known, strip, feat_BrwD)
            class_BnW = kernels.to_rows(class_BQ[:, None], strip)[:, 0]
        return kernels.upscale(feat_BrwD, strip, upsampled, class_BnW, biases, bits)

    def counted(self, policy: RoutingPolicy, class_BHW: Tensor) -> Executed:
        """What :meth:`run` would do with these classes, without doing it."""
        M, (h, w) = policy.num_classes, self.grid.lr_size
        done = Executed(M)
        every_class = policy.charges_every_class and _mixed(class_BHW)
        for top in range(0, h, self.rows):
            bottom = min(h, top + self.rows)
            class_BnW = class_BHW[:, self._hr_rows[top] : self._hr_rows[bottom]]
            counts_M = class_counts(class_BnW, M)
            done.add(counts_M, len(class_BHW) * (bottom - top) * w, every_class)
        return done

    def _classes(
        self,
        policy: RoutingPolicy,
        known: Tensor | ThresholdAssigner | None,
        strip: Strip,
        feat_BrwD: Tensor,
    ) -> Tensor:
        """The class of each query of a strip, ``(B, Q)``."""
        if known is not None:
            if isinstance(known, ThresholdAssigner):
                class_BnW = known.assign(self._score(policy, feat_BrwD, strip))
            else:
                class_BnW = known[:, _rows(policy, strip)]
            if policy.per_lr_pixel:
                class_BnW = self.lr_pixels.expand(class_BnW, strip)
            return self.kernels.to_subpixel_major(class_BnW[:, None], strip)[:, 0]
        if policy.fixed_class is not None:
            shape = (len(feat_BrwD), (strip.hr_bottom - strip.hr_top) * self.grid.size[1])
            return policy.assign_constant(shape, feat_BrwD.device)
        return policy.assign_pixels(self.strip_logits(feat_BrwD, strip)[..., None])[..., 0]

    def strip_logits(self, feat_BrwD: Tensor, strip: Strip) -> Tensor:
        """The classifier's output at a strip's queries, ``(B, M, Q)``."""
        logits_BMQ = self.kernels.logits(feat_BrwD, strip)
        check_finite(logits_BMQ, "the classifier's output")
        unseen_Q = self._unseen(strip)
        if unseen_Q is not None:
            logits_BMQ = logits_BMQ.masked_fill(unseen_Q, -EASY)
            logits_BMQ[:, -1].masked_fill_(unseen_Q, EASY)
        return logits_BMQ

    def _unseen(self, strip: Strip) -> Tensor | None:
        """Which queries of a strip nobody sees, ``(Q,)``; ``None`` if all are seen."""
        unseen_rw = self.lr.unseen(strip.top, strip.bottom)
        if unseen_rw is None or not bool(unseen_rw.any()):
            return None
        near_n = self.grid.rows_H[strip.hr_top : strip.hr_bottom] - strip.top
        unseen_nW = unseen_rw[near_n][:, self.grid.cols_W]
        return self.kernels.to_subpixel_major(unseen_nW[None, None], strip)[0, 0]

    def _score(self, policy: RoutingPolicy, feat_BrwD: Tensor, strip: Strip) -> Tensor:
        """What the rule keeps of a strip's pixels: HR rows, or LR rows if it decides LR pixels."""
        score_BcQ = policy.score(self.strip_logits(feat_BrwD, strip)[..., None])[..., 0]
        score_BcnW = self.kernels.to_rows(score_BcQ, strip)
        return self.lr_pixels.mean(score_BcnW, strip) if policy.per_lr_pixel else score_BcnW

    def _first_pass(
        self, policy: RoutingPolicy, progress: Progress | None
    ) -> Tensor | ThresholdAssigner:
        """A first pass; with every pixel's class, ``(B, H, W)`` or of LR pixels ``(B, h, w)``, or
        with rules for them."""
        B, (h, w) = len(self.lr), self.grid.lr_size
        size = (h, w) if policy.per_lr_pixel else self.grid.size
        scores = first_pass(policy, B, size, self.lr.device)
        kept_BhwD: Tensor | None = None
        keep = self._keep and not isinstance(self.features, KeptRows)

        def look(strip: Strip, feat_BrwD: Tensor) -> Callable[[], None]:
            nonlocal kept_BhwD, keep
            rows = self._score(policy, feat_BrwD, strip)
            if kept_BhwD is None and keep:
                try:
                    kept_BhwD = feat_BrwD.new_empty(B, h, w, feat_BrwD.shape[3])
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    keep = False  # then they are computed again

            def keep_it() -> None:
                scores.put(_rows(policy, strip).start, rows)
                if kept_BhwD is not None:
                    kept_BhwD[:, strip.top : strip.bottom] = feat_BrwD

            return keep_it

        self.each_strip(look, progress)
        if kept_BhwD is not None:
            self.features = KeptRows(kept_BhwD)
        return scores.finish()

    def each_strip(
        self,
        work: Callable[[Strip, Tensor], Callable[[], None]],
        progress: Progress | None = None,
    ) -> None:
        """``work`` on every strip in order; what it returns makes its result count.

        Out of memory, the same rows come again in smaller strips.
        """
        h, done, delivering = self.grid.lr_size[0], 0, False
        while done < h:
            strips = self.features.strips(self.rows, done)
            try:
                while done < h:
                    with self._execution.arithmetic(self.lr.device.type):
                        top, feat_BrwD = next(strips)
                        if not isinstance(self.features, KeptRows):  # else they were checked before
                            check_finite(feat_BrwD, "the backbone's features")
                        bottom = top + feat_BrwD.shape[1]
                        strip = Strip(top, bottom, self._hr_rows[top], self._hr_rows[bottom])
                        deliver = work(strip, feat_BrwD)
                    # From here on the strip counts: what fails in a sink must not be done twice.
                    done, delivering = bottom, True
                    deliver()
                    if progress is not None:
                        progress(done / h)
                    delivering = False
            except (MemoryError, RuntimeError) as error:
                if delivering or not is_out_of_memory(error):
                    raise
                self._shrink(error)

    def _shrink(self, error: Exception) -> None:
        if self.rows == 1:
            raise PCSRError(
                f"not enough memory even for one row of the picture at a time ({error})"
            ) from error
        self.rows = max(1, self.rows // 2)
        _log.warning("out of memory: continuing with %d rows at a time", self.rows)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _rows(policy: RoutingPolicy, strip: Strip) -> slice:
    """A strip's rows of those pixels that a rule decides."""
    if policy.per_lr_pixel:
        return slice(strip.top, strip.bottom)
    return slice(strip.hr_top, strip.hr_bottom)


def class_counts(classes: Tensor, num_classes: int) -> list[int]:
    """How many pixels each class has."""
    counts = [torch.count_nonzero(classes == j) for j in range(num_classes - 1)]
    heavier = torch.stack(counts).tolist() if counts else []
    return [*heavier, classes.numel() - sum(heavier)]


def _mixed(known: Tensor | ThresholdAssigner) -> bool:
    """Whether pixels take several classes."""
    if isinstance(known, ThresholdAssigner):
        return known.mixed
    return bool((known != known.flatten()[0]).any())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)

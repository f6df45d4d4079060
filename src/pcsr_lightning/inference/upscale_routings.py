"""One picture under many routings at once, strip by strip, each pixel met once by each upsampler.

Legend: h w LR size, H W HR size, M classes, n HR rows of a strip, Q its queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pcsr_lightning.inference.checks import check_finite, output_size
from pcsr_lightning.inference.engine import Executed, class_counts
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.flops import model_macs
from pcsr_lightning.inference.input_rows import InputRows
from pcsr_lightning.inference.kernels import Strip
from pcsr_lightning.inference.output_rows import RefinedRows, UpsampledRows
from pcsr_lightning.inference.upscale_rows import RowsDone
from pcsr_lightning.inference.upscaling import make_engine
from pcsr_lightning.networks import PCSR
from pcsr_lightning.routing import RoutingConfig, make_policy
from pcsr_lightning.routing.cost import PictureMacs

RoutedSink = Callable[[int, int, Tensor], None]
"""Takes the number of a routing, a first row, and rows ``(1, 3, n, W)`` that follow, float32."""
LogitSink = Callable[[Tensor, PictureMacs], None]
"""Takes the classifier's output of a strip, ``(1, M, n, W)``, and what the picture costs."""


def upscale_routings(
    model: PCSR,
    image_13hw: Tensor,
    scale: float | Sequence[float],
    routings: Sequence[RoutingConfig],
    sink: RoutedSink,
    logits: LogitSink | None = None,
    execution: Execution | None = None,
) -> list[RowsDone]:
    """What :func:`upscale` gives under each of many routings, in the memory of a few strips.

    Args:
        model: with two classes or more; on the picture's device.
        image_13hw: in [0, 1].
        scale: one number, or (vertical, horizontal).
        routings: in which each pixel finds its class by itself: ``k``, or a fixed class.
        sink: takes finished rows, not clamped.
        logits: sees the classifier's output.
        execution: precision and strips.

    Returns:
        What each routing cost.

    Raises:
        PCSRError: NaN or infinite values.
    """
    lr_size = (int(image_13hw.shape[2]), int(image_13hw.shape[3]))
    size, macs, M = output_size(lr_size, scale), model_macs(model), model.num_classes
    cost = macs.of_picture(lr_size, size)
    policies = [make_policy(routing, cost) for routing in routings]
    assert not any(policy.needs_whole_picture for policy in policies)
    area = (size[0] / lr_size[0], size[1] / lr_size[1])
    done = [Executed(M) for _ in policies]

    with torch.inference_mode():
        engine = make_engine(model, InputRows(image_13hw.float()), size, execution or Execution())
        upsampled, kernels = UpsampledRows(engine.lr, size), engine.kernels
        refined = [
            RefinedRows(size[0], kernels.refine if policy.config.refines(area) else None)
            for policy in policies
        ]

        def work(strip: Strip, feat_1rwD: Tensor) -> Callable[[], None]:
            logits_1MnW = kernels.to_rows(engine.strip_logits(feat_1rwD, strip), strip)
            below_13nW = upsampled.rows(strip.hr_top, strip.hr_bottom)
            made_M13nW = []
            for j in range(M):
                class_1Q = torch.full_like(logits_1MnW[:, 0].flatten(1), j, dtype=torch.uint8)
                residual_13Q = kernels.residual(feat_1rwD, strip, class_1Q)
                made_M13nW.append(below_13nW + kernels.to_rows(residual_13Q, strip))
                check_finite(made_M13nW[j], "the upscaled picture")

            def deliver() -> None:
                if logits is not None:
                    logits(logits_1MnW, cost)
                for i, policy in enumerate(policies):
                    if policy.fixed_class is None:
                        class_1nW = policy.assign_pixels(logits_1MnW)
                    else:
                        shape = tuple(logits_1MnW[:, 0].shape)
                        class_1nW = policy.assign_constant(shape, logits_1MnW.device)
                    sr_13nW = made_M13nW[-1]
                    for j in range(M - 1):
                        sr_13nW = torch.where((class_1nW == j)[:, None], made_M13nW[j], sr_13nW)
                    counts_M = class_counts(class_1nW, M)
                    done[i].add(counts_M, feat_1rwD[..., 0].numel(), every_class=False)
                    sink(i, *refined[i].push(sr_13nW, class_1nW))

            return deliver

        engine.each_strip(work)
    lr_pixels = lr_size[0] * lr_size[1]
    return [
        RowsDone(each.flops(macs, lr_pixels, policy), each.shares)
        for each, policy in zip(done, policies, strict=True)
    ]

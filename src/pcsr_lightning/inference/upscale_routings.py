"""One picture under many routings at once, strip by strip, each pixel met once by each upsampler.

Legend: h w LR size, H W HR size, M classes, n HR rows of a strip, Q its queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from pcsr_lightning.inference.checks import check_finite, output_size
from pcsr_lightning.inference.class_images import NO_CLASS
from pcsr_lightning.inference.engine import Executed, class_counts
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.flops import model_macs
from pcsr_lightning.inference.input_rows import InputRows
from pcsr_lightning.inference.kernels import Strip
from pcsr_lightning.inference.output_rows import UpsampledRows
from pcsr_lightning.inference.upscale_rows import RowsDone
from pcsr_lightning.inference.upscaling import make_engine
from pcsr_lightning.networks import PCSR
from pcsr_lightning.routing import RoutingConfig, RoutingPolicy, make_policy
from pcsr_lightning.routing.cost import PictureMacs


class RoutedStrip(NamedTuple):
    """The next HR rows of a picture.

    Attributes:
        classes: under each routing, ``(n, W)``, uint8.
        sr_3MnW: each class's pixels, float32, neither clamped nor refined; where no routing asks
            for a class, the upsampled input.
        logits_1MnW: the classifier's output.
        cost: of the picture.
    """

    classes: list[Tensor]
    sr_3MnW: Tensor
    logits_1MnW: Tensor
    cost: PictureMacs


def upscale_routings(
    model: PCSR,
    image_13hw: Tensor,
    scale: float | Sequence[float],
    routings: Sequence[RoutingConfig],
    sink: Callable[[RoutedStrip], None],
    execution: Execution | None = None,
) -> list[RowsDone]:
    """What :func:`upscale` selects from under each of many routings, in the memory of few strips.

    Args:
        model: with two classes or more; on the picture's device.
        image_13hw: in [0, 1].
        scale: one number, or (vertical, horizontal).
        routings: in which each pixel finds its class by itself: ``k``, or a fixed class.
        sink: takes the strips, from top to bottom.
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
    done = [Executed(M) for _ in policies]

    with torch.inference_mode():
        engine = make_engine(model, InputRows(image_13hw.float()), size, execution or Execution())
        upsampled, kernels = UpsampledRows(engine.lr, size), engine.kernels

        def work(strip: Strip, feat_1rwD: Tensor) -> Callable[[], None]:
            logits_1MnW = kernels.to_rows(engine.strip_logits(feat_1rwD, strip), strip)
            classes = [_assign(policy, logits_1MnW) for policy in policies]
            heaviest_1nW, lightest_1nW = (
                reduce(torch.minimum, classes),
                reduce(torch.maximum, classes),
            )
            sr_3MnW = upsampled.rows(strip.hr_top, strip.hr_bottom)[0, :, None].repeat(1, M, 1, 1)
            for j in range(M):
                idle_1nW = (heaviest_1nW > j) | (lightest_1nW < j)
                class_1nW = torch.full_like(idle_1nW, j, dtype=torch.uint8)
                class_1nW.masked_fill_(idle_1nW, NO_CLASS)
                class_1Q = kernels.to_subpixel_major(class_1nW[:, None], strip)[:, 0]
                residual_13Q = kernels.residual(feat_1rwD, strip, class_1Q)
                if bool(idle_1nW.any()):  # there the residual holds whatever was in memory
                    residual_13Q = residual_13Q.masked_fill(class_1Q == NO_CLASS, 0)
                sr_3MnW[:, j] += kernels.to_rows(residual_13Q, strip)[0]
            check_finite(sr_3MnW, "the upscaled picture")

            def deliver() -> None:
                for each, class_1nW in zip(done, classes, strict=True):
                    counts_M = class_counts(class_1nW, M)
                    each.add(counts_M, feat_1rwD[..., 0].numel(), every_class=False)
                sink(RoutedStrip([x_1nW[0] for x_1nW in classes], sr_3MnW, logits_1MnW, cost))

            return deliver

        engine.each_strip(work)
    lr_pixels = lr_size[0] * lr_size[1]
    return [
        RowsDone(each.flops(macs, lr_pixels, policy), each.shares)
        for each, policy in zip(done, policies, strict=True)
    ]


def _assign(policy: RoutingPolicy, logits_1MnW: Tensor) -> Tensor:
    if policy.fixed_class is None:
        return policy.assign_pixels(logits_1MnW)
    return policy.assign_constant(tuple(logits_1MnW[:, 0].shape), logits_1MnW.device)

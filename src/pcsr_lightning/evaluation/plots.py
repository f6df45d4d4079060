"""How routing decides, drawn: difficulties and refinement.

Legend: B batch, M classes, H W HR size, N bins.
"""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.figures import (
    Box,
    Panel,
    box_at_maximum,
    exclude_overlaps,
    new_figure,
    plain_axes,
    side_by_side,
)
from pcsr_lightning.images import bicubic
from pcsr_lightning.inference import class_map
from pcsr_lightning.routing.adm import BINS, difficulty, kmeans_thresholds

DENSITY_BINS = 100
SMOOTH = 10
"""Drawn points for each bin."""
AMPLIFIED = 8
"""How many times the change by refinement is exaggerated to be seen."""


def adaptive_thresholds(logits_1MHW: Tensor) -> list[float]:
    """The difficulties at which ADM parts a picture's pixels: ``M - 1`` of them, rising.

    None for a picture of one single difficulty, which has no groups.
    """
    d_HW = difficulty(_one(logits_1MHW))[0]
    low, high = float(d_HW.min()), float(d_HW.max())
    if not high > low:
        return []
    unit_HW = (d_HW - low) / (high - low)
    counts_N = torch.histc(unit_HW.float(), bins=BINS, min=0.0, max=1.0).double().cpu()
    borders = kmeans_thresholds(counts_N, logits_1MHW.shape[1])
    return [low + (high - low) * border for border in borders.tolist()]


def density(logits_1MHW: Tensor, bins: int = DENSITY_BINS) -> tuple[Tensor, Tensor]:
    """The centres of equal bins over [0, 1], and the part of a picture's difficulties in each."""
    d_HW = difficulty(_one(logits_1MHW))[0].float().cpu()
    counts_N = torch.histc(d_HW, bins=bins, min=0.0, max=1.0)
    return (torch.arange(bins) + 0.5) / bins, counts_N / d_HW.numel()


def difficulty_density(logits_1MHW: Tensor, title: str = "") -> Figure:
    """How a picture's difficulties are spread, and where they are parted (appendix, Fig. 1).

    The share of the pixels in each of 100 bins, joined by a smooth curve. Pixels left of a dotted
    line go to a lighter upsampler, those right of it to a heavier: the black line is the most
    probable class of two (0.5; with more classes there is no such line), red lines are ADM's.

    Args:
        logits_1MHW: the classifier's output for one picture, before the softmax.
        title: above it.

    Raises:
        ConfigError: several pictures at once, or a single class.
    """
    _, density_N = density(logits_1MHW)
    # A cubic convolution may dip below zero where the bins rise suddenly.
    steps = SMOOTH * len(density_N)
    smooth = bicubic(density_N[None], (1, steps)).clamp_min(0)[0]
    x = (torch.arange(steps) + 0.5) / steps

    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    axes.plot(x.tolist(), smooth.tolist(), color="#2166ac", linewidth=1.6)
    axes.fill_between(x.tolist(), smooth.tolist(), color="#2166ac", alpha=0.12, linewidth=0)
    if logits_1MHW.shape[1] == 2:
        axes.axvline(
            0.5, color="black", linestyle=":", linewidth=1.8, label="most probable class: 0.5"
        )
    borders = adaptive_thresholds(logits_1MHW)
    said = "ADM: " + ", ".join(f"{border:.2f}" for border in borders)
    for number, border in enumerate(borders):
        # A label that starts with an underscore is left out of the legend.
        label = "_" if number else said
        axes.axvline(border, color="red", linestyle=":", linewidth=1.8, label=label)
    axes.set(xlabel="difficulty: probability of the heavy half", ylabel="density", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=11)
    plain_axes(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9, frameon=False)
    return figure


def changed_boxes(off_3HW: Tensor, on_3HW: Tensor, count: int = 2) -> list[Box]:
    """Up to ``count`` square parts in which two pictures differ most, none overlapping another.

    Sides are a twelfth of the picture's shorter one, 24 pixels at least.
    """
    H, W = off_3HW.shape[-2:]
    side = min(max(24, min(H, W) // 12), H, W)
    step = max(1, side // 8)
    changed_HW = (on_3HW - off_3HW).abs().mean(dim=0)
    mean = F.avg_pool2d(changed_HW[None, None], side, stride=step)[0, 0]
    boxes: list[Box] = []
    while len(boxes) < count and bool(mean.isfinite().any()):
        boxes.append(box_at_maximum(mean, side, step))
        exclude_overlaps(mean, boxes[-1], step)
    return boxes


def refinement_pair(
    off_3HW: Tensor,
    on_3HW: Tensor,
    assignment_HW: Tensor,
    num_classes: int,
    captions: tuple[str, str] = ("without refinement", "with refinement"),
    title: str = "",
) -> Figure:
    """A picture without and with pixel-wise refinement, the change and the classes (Fig. 5).

    Below each, enlarged, the parts that refinement changes most.

    Args:
        off_3HW: routed, not refined, in [0, 1].
        on_3HW: the same, refined.
        assignment_HW: the class of each pixel.
        num_classes: ``M``.
        captions: above the first two.
        title: above all.
    """
    counts_M = torch.bincount(assignment_HW.flatten().long(), minlength=num_classes)
    return side_by_side(
        [
            Panel(captions[0], off_3HW),
            Panel(captions[1], on_3HW),
            Panel(f"the change, {AMPLIFIED} times", 0.5 + AMPLIFIED * (on_3HW - off_3HW)),
            Panel("classes", class_map(on_3HW, assignment_HW, num_classes)),
        ],
        changed_boxes(off_3HW, on_3HW),
        shares=(3, (counts_M / assignment_HW.numel()).tolist()),
        title=title,
    )


def _one(logits_1MHW: Tensor) -> Tensor:
    B, M = logits_1MHW.shape[:2]
    if B != 1:
        raise ConfigError(
            f"difficulties are one picture's: expected (1, M, H, W), got {B} pictures"
        )
    if M < 2:
        raise ConfigError("difficulties need two classes or more, this classifier has one")
    return logits_1MHW

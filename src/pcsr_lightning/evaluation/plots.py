"""What routing buys and how it decides, drawn: PSNR against FLOPs, difficulties, refinement.

Legend: B batch, M classes, H W HR size, N bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.figures import (
    DPI,
    Box,
    Panel,
    box_at_maximum,
    exclude_overlaps,
    side_by_side,
)
from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.images import bicubic
from pcsr_lightning.inference import class_map
from pcsr_lightning.routing.adm import BINS, difficulty, kmeans_thresholds

OURS = "#b2182b"
MARKERS = {"original": "s", "ClassSR": "^", "ARM": "v", "MGA": "D", "PCSR": "o"}
"""The published methods; always hollow, so that they are not taken for measurements of ours."""
SOURCES = ("#2166ac", "#762a83", "#1b7837", "#8c510a", "#01665e", "#4d4d4d", "#bf812d")
"""Colours of the published tables."""
TOUCHING = 0.03
"""Of the axes' spans: our points closer than this share one label."""
DENSITY_BINS = 100
SMOOTH = 10
"""Drawn points for each bin."""
AMPLIFIED = 8
"""How many times the change by refinement is exaggerated to be seen."""
_FOOTNOTE = (
    "The published count takes the transposed convolution of FSRCNN's original at the output's "
    "size:\nabout 9.4 times what that network really costs."
)


def psnr_flops(
    points: Sequence[Measurement],
    published: Iterable[PublishedPoint] = (),
    name: str = "ours",
    title: str = "",
    beside: str | None = None,
    label: Callable[[Measurement], str] = attrgetter("routing_name"),
) -> Figure:
    """PSNR against GFLOPs, ours as a curve, the paper's points as hollow markers.

    Args:
        points: ours, joined in the order of their cost.
        published: the paper's; those without PSNR or GFLOPs are left out.
        name: of our curve.
        title: above it.
        beside: draws the published points in axes of their own, under this title: for when ours
            were measured on other pictures, where the numbers cannot be compared.
        label: what is written beside a point of ours; may be empty.

    Raises:
        ConfigError: there are no points of ours.
    """
    if not points:
        raise ConfigError("a plot of PSNR against GFLOPs needs a point at least")
    theirs = [p for p in published if p.psnr is not None and p.gflops is not None]
    apart = bool(theirs) and beside is not None
    figure = _figure(6.4 + 2.6 * bool(theirs) + 2.8 * apart, 4.4)
    columns = figure.subplots(1, 1 + apart, squeeze=False, width_ratios=[1.5, 1][: 1 + apart])[0]
    _draw_ours(columns[0], points, name, label)
    columns[0].set_title(title, fontsize=11)
    if theirs:
        _draw_published(columns[-1], theirs)
    if apart:
        columns[-1].set_title(beside, fontsize=11)
    for axes in columns:
        axes.set_xlabel("GFLOPs, published count")
        axes.set_ylabel("PSNR, dB")
        axes.margins(0.12)
        _plain(axes)
        axes.grid(color="#e4e4e4", linewidth=0.8)
        if theirs and axes is columns[-1]:  # too many entries to leave the points visible
            axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1), labelspacing=1.1)
        else:
            axes.legend(fontsize=8, loc="lower right")
    if any(p.model == "FSRCNN" for p in theirs):
        figure.supxlabel(_FOOTNOTE, fontsize=7.5, color="#555555")
    return figure


def _draw_ours(
    axes: Axes, points: Sequence[Measurement], name: str, label: Callable[[Measurement], str]
) -> None:
    ordered = sorted(points, key=lambda p: (p.gflops_published, p.psnr))
    x, y = [p.gflops_published for p in ordered], [p.psnr for p in ordered]
    axes.plot(x, y, color=OURS, marker="o", markersize=5, linewidth=1.6, label=name, zorder=3)
    near = TOUCHING * (max(x) - min(x)), TOUCHING * (max(y) - min(y))
    groups: list[list[Measurement]] = []
    for point in ordered:
        last = groups[-1][0] if groups else None
        if (
            last is not None
            and point.gflops_published - last.gflops_published <= near[0]
            and abs(point.psnr - last.psnr) <= near[1]
        ):
            groups[-1].append(point)
        else:
            groups.append([point])
    for group in groups:
        rightmost = len(groups) > 1 and group is groups[-1]
        axes.annotate(
            ", ".join(filter(None, map(label, group))),
            (group[0].gflops_published, group[0].psnr),
            xytext=(4, 6) if rightmost else (5, -11),
            textcoords="offset points",
            ha="right" if rightmost else "left",
            fontsize=8,
            color=OURS,
        )


def _draw_published(axes: Axes, points: Sequence[PublishedPoint]) -> None:
    groups: dict[tuple[str, str], list[PublishedPoint]] = {}
    for point in points:
        groups.setdefault((point.model, point.source), []).append(point)
    sources = list(dict.fromkeys(point.source for point in points))
    # Bigger around what is there already: the same point in two tables, and models of one table
    # that differ in the number of classes only.
    rings: dict[tuple[object, object], int] = {}
    for (model, source), group in groups.items():
        kind = (group[0].method, source)
        keys: list[tuple[object, object]] = [kind, *((p.gflops, p.psnr) for p in group)]
        inside = max(rings.get(key, 0) for key in keys)
        axes.plot(
            [p.gflops for p in group if p.gflops is not None],
            [p.psnr for p in group if p.psnr is not None],
            linestyle="none",
            marker=MARKERS[kind[0]],
            markersize=8 + 3.5 * inside,
            markerfacecolor="none",
            markeredgecolor=SOURCES[sources.index(source) % len(SOURCES)],
            markeredgewidth=1.5,
            label=f"{model} (published, {source})",
        )
        rings.update(dict.fromkeys(keys, inside + 1))


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

    figure = _figure(6.4, 4.0)
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
    _plain(axes)
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


def _figure(width: float, height: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.06)
    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _one(logits_1MHW: Tensor) -> Tensor:
    B, M = logits_1MHW.shape[:2]
    if B != 1:
        raise ConfigError(
            f"difficulties are one picture's: expected (1, M, H, W), got {B} pictures"
        )
    if M < 2:
        raise ConfigError("difficulties need two classes or more, this classifier has one")
    return logits_1MHW

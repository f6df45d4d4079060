"""Pictures and enlarged parts of them side by side, drawn without a display or pyplot's state."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.inference import class_colours
from pcsr_lightning.routing.refine import heavy_classes

FRAMES = ("#ffd400", "#00d0c0", "#ff5fd2", "#7fe03c")
"""Colours of the crops' frames: apart from each other and from the class map's red and blue."""
COLUMN, DPI = 3.4, 150


class Panel(NamedTuple):
    """One column: a caption and a picture ``(3, H, W)`` in [0, 1]."""

    caption: str
    image_3HW: Tensor


class Box(NamedTuple):
    """A square part of a picture."""

    top: int
    left: int
    side: int

    def cut(self, image_3HW: Tensor) -> Tensor:
        """That part."""
        return image_3HW[:, self.top : self.top + self.side, self.left : self.left + self.side]


def telling_boxes(
    bicubic_3HW: Tensor,
    ours_3HW: Tensor,
    ground_truth_3HW: Tensor,
    assignment_HW: Tensor,
    num_classes: int,
) -> list[Box]:
    """Two parts worth enlarging: where we gain most over bicubic, and where classes are most mixed.

    The second does not overlap the first, and is left out where there is no room for it. Sides are
    a sixth of the picture's shorter one, 16 pixels at least.
    """
    H, W = ground_truth_3HW.shape[-2:]
    side = min(max(16, min(H, W) // 6), H, W)
    step = max(1, side // 8)

    def mean_in_box(x_HW: Tensor) -> Tensor:
        return F.avg_pool2d(x_HW[None, None], side, stride=step)[0, 0]

    worse_HW, better_HW = (
        (x - ground_truth_3HW).abs().mean(dim=0) for x in (bicubic_3HW, ours_3HW)
    )
    gain = mean_in_box(worse_HW - better_HW)
    boxes = [box_at_maximum(gain, side, step)]

    heavy = mean_in_box((assignment_HW < heavy_classes(num_classes)).to(gain))
    # Among equally mixed places the one with the greater gain.
    mixed = gain - (heavy - 0.5).abs()
    exclude_overlaps(mixed, boxes[0], step)
    if bool(mixed.isfinite().any()):
        boxes.append(box_at_maximum(mixed, side, step))
    return boxes


def box_at_maximum(value_nm: Tensor, side: int, step: int) -> Box:
    """The box with the highest value, where there is one for every ``step`` pixels."""
    row, column = divmod(int(value_nm.argmax()), value_nm.shape[1])
    return Box(step * row, step * column, side)


def exclude_overlaps(value_nm: Tensor, box: Box, step: int) -> None:
    """Sets the values of all boxes that overlap ``box`` to minus infinity, in place."""
    row, column = box.top // step, box.left // step
    reach = -(-box.side // step)  # boxes this many steps apart no longer overlap
    value_nm[
        max(0, row - reach + 1) : row + reach, max(0, column - reach + 1) : column + reach
    ] = -torch.inf


def side_by_side(
    panels: Sequence[Panel],
    boxes: Sequence[Box] = (),
    shares: tuple[int, Sequence[float]] | None = None,
    title: str = "",
) -> Figure:
    """Whole pictures in a row, and below each its parts, enlarged.

    Args:
        panels: pictures of one size.
        boxes: the parts; framed in the first row.
        shares: which panel is a class map, and the share of each class: a legend above it.
        title: above all.
    """
    H, W = panels[0].image_3HW.shape[-2:]
    heights = [H / W, *(1.0 for _ in boxes)]
    figure = Figure(
        figsize=(COLUMN * len(panels), COLUMN * sum(heights) + 0.35 + 0.4 * bool(title)),
        dpi=DPI,
        layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.05, wspace=0.0, hspace=0.0),
    )
    axes = figure.subplots(len(heights), len(panels), squeeze=False, height_ratios=heights)
    if title:
        figure.suptitle(title, fontsize=13)
    for column, panel in enumerate(panels):
        top = axes[0, column]
        _show(top, panel.image_3HW)
        top.set_title(panel.caption, fontsize=11)
        for row, box in enumerate(boxes):
            colour = FRAMES[row % len(FRAMES)]
            corner = (box.left - 0.5, box.top - 0.5)
            top.add_patch(
                Rectangle(corner, box.side, box.side, fill=False, edgecolor=colour, linewidth=1.8)
            )
            _show(axes[row + 1, column], box.cut(panel.image_3HW), colour)
    if shares is not None:
        _legend(axes[0, shares[0]], shares[1])
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.06)
    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def plain_axes(axes: Axes) -> None:
    """Removes the lines at the top and at the right."""
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(
    figure: Figure, path: str | Path, metadata: Mapping[str, str | None] | None = None
) -> None:
    """Writes a figure in the format that the suffix names, completely or not at all."""
    path, content = Path(path), BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix(".") or None, metadata=metadata)
    atomic_write(path, content.getvalue())


def save_for_papers(figure: Figure, path: Path) -> list[Path]:
    """Writes a figure as ``path``, a PNG, and beside it as PDF; returns both.

    The PDF holds its fonts as TrueType, which publishers ask for, and no date: the same figure is
    the same file.
    """
    pdf = path.with_suffix(".pdf")
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every step
    save_figure(figure, path)
    with rc_context({"pdf.fonttype": 42}):
        save_figure(figure, pdf, {"CreationDate": None})
    return [path, pdf]


def _legend(axes: Axes, share_M: Sequence[float]) -> None:
    """The classes' colours and shares in place of a caption."""
    M = len(share_M)
    names = ["heavy", *(f"class {j}" for j in range(1, M - 1)), "light"][-M:]
    axes.set_title("")
    legend = axes.legend(
        handles=[
            Patch(color=colour, label=f"{name} {100 * share:.1f} %")
            for colour, name, share in zip(class_colours(M).tolist(), names, share_M, strict=True)
        ],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=M,
        frameon=False,
        fontsize=11 if M == 2 else 8,
        handlelength=1.0,
        columnspacing=1.0,
        borderpad=0.2,
        borderaxespad=0.0,
    )
    legend.set_in_layout(False)  # the other panels' captions already make room for it


def _show(axes: Axes, image_3HW: Tensor, frame: str | None = None) -> None:
    axes.imshow(image_3HW.clamp(0, 1).permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(frame is not None)
        spine.set(edgecolor=frame, linewidth=3)

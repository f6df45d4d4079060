"""PSNR against GFLOPs: curves of one model or several, and the paper's points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.figures import new_figure, plain_axes
from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.published import PublishedPoint

OURS = ("#b2182b", "#0072b2", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#000000")
OUR_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Colours that the colour-blind tell apart, and markers, of our curves in their order."""
MARKERS = {"original": "s", "ClassSR": "^", "ARM": "v", "MGA": "D", "PCSR": "o"}
"""The published methods; always hollow, so that they are not taken for measurements of ours."""
SOURCES = ("#2166ac", "#762a83", "#1b7837", "#8c510a", "#01665e", "#4d4d4d", "#bf812d")
"""Colours of the published tables."""
ORACLE = "oracle"
"""What the curve of the best choice of classes is called."""
TOUCHING = 0.03
"""Of the axes' spans: our points closer than this share one label."""
_FOOTNOTE = (
    "The published count takes the transposed convolution of FSRCNN's original at the output's "
    "size:\nabout 9.4 times what that network really costs."
)


@dataclass(frozen=True)
class Curve:
    """Measurements that are joined by a line.

    Attributes:
        name: in the legend.
        points: at least one, in any order.
        deviations: the standard deviation in dB of each point's PSNR, drawn as a bar; may be empty.
        bound: whether it bounds the curve before it: dotted, in the same colour.
    """

    name: str
    points: tuple[Measurement, ...]
    deviations: tuple[float, ...] = ()
    bound: bool = False


def psnr_flops(
    points: Sequence[Measurement],
    published: Iterable[PublishedPoint] = (),
    name: str = "ours",
    title: str = "",
    beside: str | None = None,
    label: Callable[[Measurement], str] = attrgetter("routing_name"),
    bound: Sequence[Measurement] = (),
) -> Figure:
    """PSNR against GFLOPs of one model, with its points named; see :func:`draw_curves`.

    Args:
        points: joined in the order of their cost.
        published: as of :func:`draw_curves`.
        name: of the curve.
        title: as of :func:`draw_curves`.
        beside: as of :func:`draw_curves`.
        label: what is written beside a point; may be empty.
        bound: the oracle's points, a curve of their own.

    Raises:
        ConfigError: there are no points.
    """
    if not points:
        raise ConfigError("a plot of PSNR against GFLOPs needs a point at least")
    curves = [Curve(name, tuple(points))]
    if bound:
        curves.append(Curve(f"{name}, {ORACLE}", tuple(bound), bound=True))
    return draw_curves(curves, published, title, beside, label)


def draw_curves(
    curves: Sequence[Curve],
    published: Iterable[PublishedPoint] = (),
    title: str = "",
    beside: str | None = None,
    label: Callable[[Measurement], str] | None = None,
) -> Figure:
    """PSNR against GFLOPs, our curves with filled markers, the paper's points with hollow ones.

    Args:
        curves: ours.
        published: the paper's; those without PSNR or GFLOPs are left out.
        title: above.
        beside: draws the published points in axes of their own, under this title: for when ours
            were measured on other pictures, where the numbers cannot be compared.
        label: what is written beside a point of a lone curve; nothing if there are several.
    """
    theirs = [p for p in published if p.psnr is not None and p.gflops is not None]
    apart = bool(theirs) and beside is not None
    figure = new_figure(6.4 + 2.6 * bool(theirs) + 2.8 * apart, 4.4)
    columns = figure.subplots(1, 1 + apart, squeeze=False, width_ratios=[1.5, 1][: 1 + apart])[0]
    own = [curve for curve in curves if not curve.bound]
    place = -1
    for curve in curves:
        place += not curve.bound
        _draw_ours(columns[0], curve, max(place, 0))
    if label is not None and len(own) == 1:
        _label_points(columns[0], own[0].points, label)
    columns[0].set_title(title, fontsize=11)
    if theirs:
        _draw_published(columns[-1], theirs)
    if apart:
        columns[-1].set_title(beside, fontsize=11)
    for axes in columns:
        axes.set_xlabel("GFLOPs, published count")
        axes.set_ylabel("PSNR, dB")
        axes.margins(0.12)
        plain_axes(axes)
        axes.grid(color="#e4e4e4", linewidth=0.8)
        if theirs and axes is columns[-1]:  # too many entries to leave the points visible
            axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1), labelspacing=1.1)
        else:
            axes.legend(fontsize=8, loc="lower right" if len(own) == 1 else "best")
    if any(p.model == "FSRCNN" for p in theirs):
        figure.supxlabel(_FOOTNOTE, fontsize=7.5, color="#555555")
    return figure


def _draw_ours(axes: Axes, curve: Curve, place: int) -> None:
    order = sorted(
        range(len(curve.points)),
        key=lambda i: (curve.points[i].gflops_published, curve.points[i].psnr),
    )
    colour, marker = OURS[place % len(OURS)], OUR_MARKERS[place % len(OUR_MARKERS)]
    style = ":" if curve.bound else ("-", "--", "-.")[place // len(OURS) % 3]
    x, y = (
        [getattr(curve.points[i], name) for i in order] for name in ("gflops_published", "psnr")
    )
    axes.plot(
        x, y, color=colour, marker=marker, linestyle=style,
        markersize=5, linewidth=1.6, label=curve.name, zorder=3,
    )  # fmt: skip
    if curve.deviations:
        bars = [curve.deviations[i] for i in order]
        axes.errorbar(x, y, bars, fmt="none", ecolor=colour, capsize=2.5, elinewidth=1)


def _label_points(
    axes: Axes, points: Sequence[Measurement], label: Callable[[Measurement], str]
) -> None:
    ordered = sorted(points, key=lambda p: (p.gflops_published, p.psnr))
    x, y = [p.gflops_published for p in ordered], [p.psnr for p in ordered]
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
            color=OURS[0],
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

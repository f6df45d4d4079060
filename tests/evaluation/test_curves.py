"""What figures of PSNR against GFLOPs show: our curves, and the paper's points told apart."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.curves import Curve, draw_curves, psnr_flops
from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.published import published_points
from pcsr_lightning.inference import RoutingConfig


def point(gflops: float, psnr: float, routing: RoutingConfig) -> Measurement:
    return Measurement(psnr=psnr, gflops_published=gflops, routing=routing)


POINTS = [
    point(110.0, 26.04, RoutingConfig(fixed_class=0)),
    point(55.0, 25.9, RoutingConfig(k=1)),
    point(70.0, 26.0, RoutingConfig(k=0)),
]


def texts(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def hollow(axes: Axes) -> list[Line2D]:
    return [line for line in axes.get_lines() if line.get_markerfacecolor() == "none"]


def xy(line: Line2D) -> list[list[float]]:
    return np.asarray(line.get_xydata()).tolist()


def test_our_curve_and_the_published_points() -> None:
    published = published_points("Test2K", "carn", table="Table 1")
    [axes] = psnr_flops(POINTS, published, name="carn-x4").axes
    curve, *theirs = axes.get_lines()
    assert xy(curve) == [[55.0, 25.9], [70.0, 26.0], [110.0, 26.04]]  # by cost
    assert curve.get_linestyle() == "-"
    assert curve.get_markerfacecolor() != "none"
    assert theirs == hollow(axes)
    assert [xy(line) for line in theirs] == [
        [[112.0, 26.03]],
        [[101.7, 26.01]],
        [[99.8, 26.01]],
        [[64.0, 26.01]],
    ]
    assert all(line.get_linestyle() == "None" for line in theirs)
    assert len({line.get_marker() for line in theirs}) == 4
    assert texts(axes) == [
        "carn-x4",
        *(
            f"{name} (published, Table 1)"
            for name in ("CARN", "CARN-ClassSR", "CARN-ARM", "CARN-PCSR")
        ),
    ]
    assert {text.get_text(): text.xy for text in axes.texts} == {
        "k = 1": (55.0, 25.9),
        "k = 0": (70.0, 26.0),
        "class 0 alone": (110.0, 26.04),
    }


def test_the_same_place_twice() -> None:
    """Labels are joined; markers of other tables and of other class counts are told apart."""
    points = [*POINTS, point(110.0, 26.0401, RoutingConfig(k=-2))]
    [axes] = psnr_flops(points, published_points("Test2K", "carn")).axes
    assert [text.get_text() for text in axes.texts] == ["k = 1", "k = 0", "class 0 alone, k = -2"]
    looks = [
        (str(h.get_marker()), h.get_markeredgecolor(), h.get_markersize()) for h in hollow(axes)
    ]
    assert len(set(looks)) == len(looks) == 10
    twice = [h for h in hollow(axes) if xy(h) == [[64.0, 26.01]]]
    assert len({h.get_markersize() for h in twice}) == len(twice) == 2


def test_labels_may_be_left_out() -> None:
    [axes] = psnr_flops(POINTS, label=lambda m: "cheap" if m.k == 1 else "").axes
    assert [text.get_text() for text in axes.texts if text.get_text()] == ["cheap"]


def test_published_points_of_other_pictures_stand_apart() -> None:
    published = published_points("Test2K", "fsrcnn", table="Table 1")
    figure = psnr_flops(POINTS, published, title="cup.png", beside="Test2K")
    ours, theirs = figure.axes
    assert (ours.get_title(), theirs.get_title()) == ("cup.png", "Test2K")
    assert hollow(ours) == []
    assert len(hollow(theirs)) == len(theirs.get_lines()) == 4
    assert "9.4 times" in figure.get_supxlabel()
    assert "9.4" not in psnr_flops(POINTS, published_points("Test2K", "carn")).get_supxlabel()


def test_points_without_a_cost_and_no_points() -> None:
    [axes] = psnr_flops(POINTS[:1], published_points(table="Appendix Table 2"), beside="x").axes
    assert len(axes.get_lines()) == 1
    with pytest.raises(ConfigError, match="needs a point"):
        psnr_flops([])


def test_curves_of_several_models_in_one_figure() -> None:
    """Each with its colour and marker, joined by cost; bars where deviations are known."""
    other = tuple(point(p.gflops_published + 20, p.psnr - 0.1, p.routing) for p in POINTS)
    names = ["a", *(f"m{n}" for n in range(8))]
    curves = [Curve("a", tuple(POINTS), (0.01, 0.02, 0.03)), *(Curve(n, other) for n in names[1:])]
    [axes] = draw_curves(curves, title="Set5, x4").axes
    lines = [line for line in axes.get_lines() if line.get_linestyle() != "None"]
    assert texts(axes) == names
    assert xy(lines[0]) == [[55.0, 25.9], [70.0, 26.0], [110.0, 26.04]]
    np.testing.assert_allclose(xy(lines[1]), [[75.0, 25.8], [90.0, 25.9], [130.0, 25.94]])
    looks = {(str(x.get_color()), str(x.get_marker()), x.get_linestyle()) for x in lines}
    assert len(looks) == len(names)
    assert not list(axes.texts)
    [bars] = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    [segments] = bars.lines[2]
    ends = [[y for _, y in segment.tolist()] for segment in segments.get_segments()]
    np.testing.assert_allclose(ends, [[25.88, 25.92], [25.97, 26.03], [26.03, 26.05]])

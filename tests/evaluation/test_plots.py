"""What the plots show: lines where they belong, and the paper's points told apart from ours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.figures import Box
from pcsr_lightning.evaluation.plots import (
    AMPLIFIED,
    adaptive_thresholds,
    changed_boxes,
    density,
    difficulty_density,
    refinement_pair,
)
from pcsr_lightning.routing.adm import assign_adaptive, difficulty


def logits(num_classes: int, seed: int = 0) -> torch.Tensor:
    """Of a picture with easy, hard and in-between parts."""
    draw = torch.Generator().manual_seed(seed)
    out = torch.randn(1, num_classes, 40, 50, generator=draw)
    out[:, 0, :12] += 3
    out[:, -1, 20:] += 2
    return out


def dotted(axes: Axes) -> list[Line2D]:
    return [line for line in axes.get_lines() if line.get_linestyle() == ":"]


def texts(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("num_classes", [2, 3, 4])
def test_thresholds_part_the_pixels_as_adm_does(num_classes: int) -> None:
    values = 0.4 * logits(num_classes)  # far from 0 and from 1, so that the range matters
    borders = adaptive_thresholds(values)
    assert len(borders) == num_classes - 1
    assert borders == sorted(borders)
    above = sum((difficulty(values) > border).int() for border in borders)
    classes = (num_classes - 1 - above).to(torch.uint8)
    # a float's last digit, for a value on the border itself
    assert (classes != assign_adaptive(values)).sum() <= 1


def test_density_adds_up_and_is_where_the_difficulties_are() -> None:
    values = logits(2)
    centre, share = density(values)
    expected, edges = np.histogram(difficulty(values).numpy(), bins=100, range=(0, 1))
    assert share.shape == (100,)
    np.testing.assert_allclose(centre, (edges[1:] + edges[:-1]) / 2, atol=1e-6)
    # equal but for values on an edge between two bins
    assert np.abs(share.numpy() * 2000 - expected).sum() <= 4
    assert float(share.sum()) == pytest.approx(1)


def test_the_density_curve_and_its_two_thresholds() -> None:
    values = logits(2)
    [axes] = difficulty_density(values, title="cup.png").axes
    simple, adaptive = dotted(axes)
    assert (simple.get_color(), simple.get_xdata()) == ("black", [0.5, 0.5])
    [border] = adaptive_thresholds(values)
    assert (adaptive.get_color(), adaptive.get_xdata()) == ("red", [border, border])
    assert abs(border - 0.5) > 0.001  # or the two could be mixed up unseen
    assert texts(axes) == ["most probable class: 0.5", f"ADM: {border:.2f}"]
    assert axes.get_title() == "cup.png"

    curve = axes.get_lines()[0]
    x, y = np.asarray(curve.get_xydata()).T
    centre, share = (t.numpy() for t in density(values))
    assert len(x) == 1000
    assert y.min() >= 0
    assert x[y.argmax()] == pytest.approx(centre[share.argmax()], abs=0.01)
    np.testing.assert_allclose(np.interp(centre, x, y), share, atol=0.05 * share.max())


def test_densities_of_more_classes_and_of_none() -> None:
    [axes] = difficulty_density(logits(3)).axes
    assert [line.get_color() for line in dotted(axes)] == ["red", "red"]
    assert len(texts(axes)) == 1
    flat = torch.zeros(1, 2, 5, 6)
    assert adaptive_thresholds(flat) == []
    [axes] = difficulty_density(flat).axes
    assert [line.get_color() for line in dotted(axes)] == ["black"]
    with pytest.raises(ConfigError, match="2 pictures"):
        difficulty_density(torch.zeros(2, 2, 5, 6))
    with pytest.raises(ConfigError, match="two classes"):
        difficulty_density(torch.zeros(1, 1, 5, 6))


def changed(spots: Sequence[tuple[int, int, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    off = torch.full((3, 96, 120), 0.5)
    on = off.clone()
    for top, left, much in spots:
        on[:, top : top + 24, left : left + 24] += much
    return off, on


def test_boxes_are_where_the_change_is() -> None:
    off, on = changed([(60, 90, 0.02), (9, 12, -0.04)])
    assert changed_boxes(off, on) == [Box(9, 12, 24), Box(60, 90, 24)]
    assert changed_boxes(off, on, count=1) == [Box(9, 12, 24)]
    # a picture smaller than a box, and one with room for a single box
    assert changed_boxes(off[:, :10, :9], on[:, :10, :9]) == [Box(0, 0, 9)]


def test_refinement_side_by_side() -> None:
    off, on = changed([(9, 12, 0.04), (60, 90, 0.02)])
    classes = torch.ones(96, 120, dtype=torch.uint8)
    classes[:24] = 0
    figure = refinement_pair(off, on, classes, 2, captions=("off", "on"))
    assert len(figure.axes) == 3 * 4
    shown = [np.asarray(axes.get_images()[0].get_array()) for axes in figure.axes]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["off", "on", "the change, 8 times"]
    np.testing.assert_array_equal(shown[0], off.permute(1, 2, 0))
    np.testing.assert_array_equal(shown[1], on.permute(1, 2, 0))
    np.testing.assert_allclose(shown[4], 0.5)  # the first box, without and with
    np.testing.assert_allclose(shown[5], 0.54)
    np.testing.assert_allclose(shown[6], 0.5 + AMPLIFIED * 0.04, atol=1e-5)
    assert texts(figure.axes[3]) == ["heavy 25.0 %", "light 75.0 %"]

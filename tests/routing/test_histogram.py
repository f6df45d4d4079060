"""Counting instead of keeping: the same decisions, but where pixels are nearly alike."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pcsr_lightning.routing.adm import assign_by_difficulty, difficulty
from pcsr_lightning.routing.budget import assign_by_budget, class_thresholds
from pcsr_lightning.routing.cost import class_costs
from pcsr_lightning.routing.histogram import (
    DifficultyHistogram,
    ScoreHistogram,
    ThresholdHistogram,
)

seeds = st.integers(0, 2**31)
classes = st.integers(2, 4)
cuts = st.integers(3, 40)


def decided(histogram: ScoreHistogram, score_cHW: Tensor, rows: int) -> Tensor:
    """Both looks, so many rows at a time; each strip is asked twice, as after a lack of memory."""
    strips = score_cHW.split(rows, dim=1)
    for strip in strips:
        histogram.add(strip)
    assigner = histogram.assigner()
    out = []
    for strip in strips:
        assigner.assign(strip)
        found, assigner.left = assigner.assign(strip)
        out.append(found)
    return torch.cat(out)


def logits(seed: int, num_classes: int, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(1, num_classes, 40, 50, generator=generator)


@given(seed=seeds, num_classes=classes, spread=st.sampled_from([0.05, 1.0, 5.0]), rows=cuts)
@settings(max_examples=20, deadline=None)
def test_adaptive_differs_at_the_borders_only(
    seed: int, num_classes: int, spread: float, rows: int
) -> None:
    d_1HW = difficulty(logits(seed, num_classes, spread))
    exact = assign_by_difficulty(d_1HW, num_classes)[0]
    found = decided(DifficultyHistogram(num_classes), d_1HW, rows)
    assert found.dtype == torch.uint8
    assert (found != exact).float().mean() <= 2e-3
    assert (found.int() - exact.int()).abs().max() <= 1


@given(seed=seeds, num_classes=classes, rows=cuts)
@settings(max_examples=8, deadline=None)
def test_adaptive_does_not_depend_on_strips(seed: int, num_classes: int, rows: int) -> None:
    d_1HW = difficulty(logits(seed, num_classes))
    whole, cut = (decided(DifficultyHistogram(num_classes), d_1HW, n) for n in (40, rows))
    assert torch.equal(whole, cut)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0, 1.0000001])
def test_one_difficulty_goes_to_the_lightest_class(value: float) -> None:
    found = decided(DifficultyHistogram(3), torch.full((1, 4, 5), value), 2)
    assert found.unique().tolist() == [2]


@given(
    seed=seeds,
    num_classes=classes,
    share=st.floats(0, 1.1),
    grain=st.sampled_from([0.0, 0.25, 1.0]),
    rows=cuts,
)
@settings(max_examples=15, deadline=None)
def test_a_budget_is_kept_and_used_up(
    seed: int, num_classes: int, share: float, grain: float, rows: int
) -> None:
    x = logits(seed, num_classes)
    x = (x / grain).round() * grain if grain else x
    macs = [1000.0 - 300 * j for j in range(num_classes)]
    thresholds = class_thresholds(x, class_costs([5000 + 16 * m for m in macs]))
    area_hw = torch.randint(1, 5, (40, 50), generator=torch.Generator().manual_seed(seed))
    score = torch.cat([thresholds[0], area_hw[None]])
    pixels = int(area_hw.sum())
    limit = share * pixels * macs[0]
    found = decided(ThresholdHistogram(macs, limit, pixels), score, rows)
    exact = assign_by_budget(score[None], macs, limit)[0]
    cost, wanted = (
        float((torch.tensor(macs)[c.long()].double() * area_hw).sum()) for c in (found, exact)
    )
    if limit >= pixels * macs[-1]:
        assert limit - 4 * (macs[0] - macs[-1]) < cost <= limit or cost == pixels * macs[0]
    else:
        assert cost == wanted
    if grain:
        # Steps of the logits that 22 bits hold: the very same pixels.
        assert torch.equal(found, exact)
    else:
        assert (found != exact).float().mean() <= 5e-3


def test_pixels_that_counts_do_not_tell_apart_are_paid_in_raster_order() -> None:
    thresholds = torch.full((1, 4, 5), 1.0)
    thresholds[0, 2] += 2.0**-20  # a little higher, and told apart by single precision only
    score = torch.cat([thresholds, torch.ones(1, 4, 5)])
    macs, pixels = [3.0, 1.0], 20
    found = decided(ThresholdHistogram(macs, pixels * 1.0 + 2 * 5, pixels), score, 3)
    assert found.flatten().tolist() == [0] * 5 + [1] * 15
    exact = assign_by_budget(score[None], macs, pixels * 1.0 + 2 * 5)[0]
    assert exact[2].tolist() == [0] * 5

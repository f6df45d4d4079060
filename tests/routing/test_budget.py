"""The budget's rule against brute force, and what it promises whatever the picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.routing import budget
from pcsr_lightning.routing.budget import assign_by_budget, class_thresholds
from pcsr_lightning.routing.by_k import assign_by_k
from pcsr_lightning.routing.cost import class_costs

seeds = st.integers(0, 2**31)
classes = st.integers(2, 5)
budgets = st.floats(0, 1.1)
grains = st.sampled_from([0.0, 0.25, 1.0])  # logits in steps: many ties


def draw(
    seed: int, num_classes: int, grain: float = 0.0, h: int = 9, w: int = 11, batch: int = 2
) -> tuple[Tensor, Tensor, list[float]]:
    """Logits, Eq. 9's costs, and what a pixel of each class takes."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, num_classes, h, w, generator=generator)
    if grain:
        logits = (logits / grain).round() * grain
    macs = torch.rand(num_classes, generator=generator).mul(900).round().add(50).sort().values
    macs_M = [float(m) + 10 * (num_classes - j) for j, m in enumerate(macs.flip(0))]
    return logits, class_costs([5000 + 16 * m for m in macs_M]), macs_M


def assign(
    logits: Tensor, costs: Tensor, macs_M: list[float], limit: float, area_hw: Tensor | None = None
) -> Tensor:
    """A budget's classes of LR pixels with these logits; one HR pixel each, if not given."""
    thresholds = class_thresholds(logits, costs)
    area_hw = torch.ones(logits.shape[-2:]) if area_hw is None else area_hw
    area = area_hw.expand(len(logits), 1, -1, -1).to(thresholds)
    return assign_by_budget(torch.cat([thresholds, area], dim=1), macs_M, limit)


def spent(classes_HW: Tensor, macs_M: list[float]) -> float:
    return sum(macs_M[j] for j in classes_HW.flatten().tolist())


def dearest_step(macs_M: list[float]) -> float:
    return macs_M[0] - macs_M[-1]


@given(seed=seeds, num_classes=classes, share=budgets, grain=grains)
@settings(max_examples=150, deadline=None)
def test_spends_the_limit_but_for_one_pixel(
    seed: int, num_classes: int, share: float, grain: float
) -> None:
    logits, costs, macs = draw(seed, num_classes, grain)
    pixels = logits[0, 0].numel()
    limit = share * pixels * macs[0]
    found = assign(logits, costs, macs, limit)
    assert found.dtype == torch.uint8
    assert found.shape == (2, 9, 11)
    for classes_HW in found:
        cost = spent(classes_HW, macs)
        if limit < pixels * macs[-1]:
            assert (classes_HW == num_classes - 1).all()
        elif limit >= pixels * macs[0]:
            assert cost == pixels * macs[0]
        else:
            assert limit - dearest_step(macs) < cost <= limit


@given(seed=seeds, share=budgets, grain=grains)
@settings(max_examples=150, deadline=None)
def test_two_classes_are_a_sorted_queue(seed: int, share: float, grain: float) -> None:
    """Pixels by falling difference of their logits, in raster order where equal, while it fits."""
    logits, costs, macs = draw(seed, 2, grain)
    limit = share * 99 * macs[0]
    for x, found in zip(logits, assign(logits, costs, macs, limit), strict=True):
        difference = (x[0] - x[1]).flatten().numpy()
        expected = np.ones(99, dtype=np.uint8)
        cost = 99 * macs[1]
        for i in np.argsort(-difference, kind="stable"):
            cost += macs[0] - macs[1]
            if cost > limit:
                break
            expected[i] = 0
        assert found.flatten().tolist() == expected.tolist()


@given(seed=seeds, num_classes=classes, share=budgets, rule=st.sampled_from(["softmax", "prop"]))
@settings(max_examples=100, deadline=None)
def test_is_equation_10_with_the_smallest_k_that_fits(
    seed: int, num_classes: int, share: float, rule: str
) -> None:
    logits, costs, macs = draw(seed, num_classes, batch=1)
    logits = logits.double()
    if rule == "prop":
        costs = class_costs([5000 + 16 * m for m in macs], "proportional")
    limit = share * 99 * macs[0]
    [found] = assign(logits, costs, macs, limit)
    low, high = -1e9, 1e9
    if spent(assign_by_k(logits, costs, low), macs) <= limit:
        high = low
    for _ in range(200):
        middle = (low + high) / 2
        fits = spent(assign_by_k(logits, costs, middle), macs) <= limit
        low, high = (low, middle) if fits else (middle, high)
    expected = assign_by_k(logits, costs, high)[0]
    # The last pixel: of several that single precision cannot tell apart, or too dear by itself.
    assert (found != expected).sum() <= 1
    if limit >= 99 * macs[-1]:
        assert spent(found, macs) >= spent(expected, macs) - dearest_step(macs)


@given(seed=seeds, num_classes=classes, grain=grains, one=budgets, other=budgets)
@settings(max_examples=100, deadline=None)
def test_a_larger_limit_makes_no_pixel_lighter(
    seed: int, num_classes: int, grain: float, one: float, other: float
) -> None:
    logits, costs, macs = draw(seed, num_classes, grain)
    less, more = (
        assign(logits, costs, macs, share * 99 * macs[0]) for share in sorted((one, other))
    )
    assert bool((more <= less).all())


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_a_constant_picture_is_paid_for_in_raster_order(num_classes: int) -> None:
    macs = [100.0 - 10 * j for j in range(num_classes)]
    costs = class_costs(macs)
    logits = torch.zeros(1, num_classes, 7, 8)
    step = macs[0] - macs[-1]
    for upgrades, count in [(20.5, 20), (20, 20), (19.9, 19), (56, 56)]:
        limit = 56 * macs[-1] + upgrades * step
        found = assign(logits, costs, macs, limit).flatten().tolist()
        assert found == [0] * count + [num_classes - 1] * (56 - count)


@given(seed=seeds, num_classes=classes, share=budgets, grain=grains, chunk=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_chunks_do_not_matter(
    seed: int, num_classes: int, share: float, grain: float, chunk: int
) -> None:
    logits, costs, macs = draw(seed, num_classes, grain)
    limit = share * 99 * macs[0]
    expected = assign(logits, costs, macs, limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "CHUNK", chunk)
        assert torch.equal(assign(logits, costs, macs, limit), expected)


@given(seed=seeds, num_classes=classes, share=budgets, other=budgets, grain=grains)
@settings(max_examples=100, deadline=None)
def test_lr_pixels_of_several_hr_pixels(
    seed: int, num_classes: int, share: float, other: float, grain: float
) -> None:
    """As at a fractional scale: each costs as much as its HR pixels."""
    logits, costs, macs = draw(seed, num_classes, grain, batch=1)
    generator = torch.Generator().manual_seed(seed)
    rows, cols = (torch.randint(2, 4, (n, 1), generator=generator) for n in (9, 11))
    area_hw = rows * cols.T
    pixels = int(area_hw.sum())

    def cost(class_hw: Tensor) -> float:
        return float((torch.tensor(macs, dtype=torch.float64)[class_hw.long()] * area_hw).sum())

    found, more = (
        assign(logits, costs, macs, part * pixels * macs[0], area_hw)[0]
        for part in sorted((share, other))
    )
    assert bool((more <= found).all())
    limit = min(share, other) * pixels * macs[0]
    if limit >= pixels * macs[-1]:
        assert limit - 9 * dearest_step(macs) < cost(found) <= limit or not found.any()


@given(seed=seeds, num_classes=classes, k=st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_thresholds_say_the_class_at_any_k(seed: int, num_classes: int, k: float) -> None:
    logits, costs, _ = draw(seed, num_classes)
    span = float(costs[0].log() - costs[-1].log())
    thresholds = class_thresholds(logits, costs).double() / span
    clear = ((thresholds - k).abs() > 1e-4 / span).all(dim=1)
    classes_BHW = (thresholds < k).sum(dim=1)
    assert torch.equal(classes_BHW[clear], assign_by_k(logits.double(), costs, k)[clear].long())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_any_precision_and_strange_values(dtype: torch.dtype) -> None:
    logits, costs, macs = draw(3, 3, batch=1)
    logits[0, 0, 0, 0], logits[0, 2, 0, 0] = 3e38, -3e38
    logits[0, 0, 0, 1], logits[0, 2, 0, 1] = -3e38, 3e38
    logits[0, :, 1] = torch.tensor([0.0, -0.0, 0.0])[:, None]
    limit = 0.6 * 99 * macs[0]
    [found] = assign(logits.to(dtype), costs, macs, limit)
    assert limit - dearest_step(macs) < spent(found, macs) <= limit
    assert (found[0, 0], found[0, 1]) == (0, 2)


def test_classes_of_one_cost() -> None:
    """Nothing can be saved between them, so nothing is denied."""
    logits, _, _ = draw(5, 2)
    same = class_costs([7.0, 7.0])
    assert not assign(logits, same, [4.0, 4.0], 4.0 * 99).any()
    assert assign(logits, same, [4.0, 4.0], 4.0 * 98).all()


def test_refusals() -> None:
    logits, costs, macs = draw(0, 3)
    for given_macs, limit, said in [
        (macs[:2], 1.0, "same two or more"),
        (macs[::-1], 1.0, "heaviest first"),
        (macs, math.nan, "nan"),
    ]:
        with pytest.raises(ConfigError, match=said):
            assign(logits, costs, given_macs, limit)
    assert not assign(logits, costs, macs, math.inf).any()
    assert (assign(logits, costs, macs, -math.inf) == 2).all()

"""The oracle's arithmetic against every possible choice, and what it promises of any errors."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.routing.oracle import assign_by_error, picked

seeds = st.integers(0, 2**31)
shares = st.floats(-0.1, 1.2)
largest = st.sampled_from([2, 9, 1000])  # errors up to so much: few values make many ties


def draw(seed: int, num_classes: int, most: int, h: int, w: int) -> tuple[Tensor, list[int]]:
    """Errors ``(M, H, W)``, in no order of the classes, and what a pixel of each class costs."""
    generator = torch.Generator().manual_seed(seed)
    error_MHW = torch.randint(0, most + 1, (num_classes, h, w), generator=generator).float()
    steps = torch.randint(0, 9, (num_classes,), generator=generator)
    return error_MHW, (steps.cumsum(0).flip(0) + 1).tolist()


def totals(error_MHW: Tensor, class_HW: Tensor, prices_M: list[int]) -> tuple[int, int]:
    """Sum of errors and cost, pixel by pixel."""
    errors, classes = error_MHW.flatten(1).tolist(), class_HW.flatten().tolist()
    return (
        sum(int(errors[j][i]) for i, j in enumerate(classes)),
        sum(prices_M[j] for j in classes),
    )


def limit_of(share: float, pixels: int, prices_M: list[int]) -> float:
    """Between all pixels in the lightest class and all in the heaviest; or beyond either."""
    low, high = pixels * prices_M[-1], pixels * prices_M[0]
    return low + share * (high - low)


def smallest(error_MHW: Tensor, prices_M: list[int], limit: float) -> int:
    """The smallest sum of errors within a limit, by trying every choice."""
    M, pixels = len(prices_M), error_MHW[0].numel()
    return min(
        error
        for choice in product(range(M), repeat=pixels)
        for error, cost in [totals(error_MHW, torch.tensor(choice), prices_M)]
        if cost <= limit
    )


@given(seed=seeds, share=st.floats(0, 1.1), most=largest)
@settings(max_examples=60, deadline=None)
def test_two_classes_by_trying_everything(seed: int, share: float, most: int) -> None:
    error_MHW, prices_M = draw(seed, 2, most, 2, 4)
    limit = limit_of(share, 8, prices_M)
    found = assign_by_error(error_MHW[None], prices_M, limit)[0]
    error, cost = totals(error_MHW, found, prices_M)
    assert cost <= limit
    assert error == smallest(error_MHW, prices_M, limit)


@given(seed=seeds, share=st.floats(0, 1.1), most=largest)
@settings(max_examples=60, deadline=None)
def test_three_classes_by_trying_everything(seed: int, share: float, most: int) -> None:
    """The smallest for what it spends; less than an upgrade from it for what it might spend."""
    error_MHW, prices_M = draw(seed, 3, most, 2, 3)
    limit = limit_of(share, 6, prices_M)
    found = assign_by_error(error_MHW[None], prices_M, limit)[0]
    error, cost = totals(error_MHW, found, prices_M)
    assert cost <= limit
    assert error == smallest(error_MHW, prices_M, cost)
    upgrade = float((error_MHW[1:].amax(0) - error_MHW.amin(0)).max())
    assert error - smallest(error_MHW, prices_M, limit) <= max(0.0, upgrade)


@given(seed=seeds, num_classes=st.integers(2, 5), most=largest)
@settings(max_examples=100, deadline=None)
def test_without_a_limit_the_best_and_of_equals_the_cheapest(
    seed: int, num_classes: int, most: int
) -> None:
    error_MHW, prices_M = draw(seed, num_classes, most, 5, 7)
    found = assign_by_error(error_MHW[None], prices_M)[0]
    assert found.dtype == torch.uint8
    for i, j in product(range(5), range(7)):
        each = error_MHW[:, i, j].tolist()
        assert int(found[i, j]) == max(c for c in range(num_classes) if each[c] == min(each))
    assert torch.equal(picked(error_MHW, found), error_MHW.amin(0))


@given(seed=seeds, num_classes=st.integers(2, 5), first=shares, second=shares, most=largest)
@settings(max_examples=150, deadline=None)
def test_more_budget_is_never_worse(
    seed: int, num_classes: int, first: float, second: float, most: int
) -> None:
    error_MHW, prices_M = draw(seed, num_classes, most, 6, 5)
    low, high = (limit_of(s, 30, prices_M) for s in sorted((first, second)))
    some, more = (assign_by_error(error_MHW[None], prices_M, limit)[0] for limit in (low, high))
    (error, cost), (error_of_more, cost_of_more) = (
        totals(error_MHW, found, prices_M) for found in (some, more)
    )
    assert error_of_more <= error
    assert cost <= max(low, 30 * prices_M[-1])
    assert cost_of_more <= max(high, 30 * prices_M[-1])


@given(seed=seeds, num_classes=st.integers(2, 4), most=largest)
@settings(max_examples=150, deadline=None)
def test_no_other_choice_of_the_same_cost_is_better(seed: int, num_classes: int, most: int) -> None:
    error_MHW, prices_M = draw(seed, num_classes, most, 8, 9)
    generator = torch.Generator().manual_seed(seed + 1)
    other = torch.randint(0, num_classes, (8, 9), generator=generator)
    error_of_other, limit = totals(error_MHW, other, prices_M)
    error, cost = totals(error_MHW, assign_by_error(error_MHW[None], prices_M, limit)[0], prices_M)
    assert cost <= limit
    upgrade = 0 if num_classes == 2 else most  # of one pixel
    assert error <= error_of_other + upgrade


def test_each_picture_of_a_batch_has_a_limit_of_its_own() -> None:
    error_BMHW = torch.stack([draw(seed, 3, 1000, 4, 6)[0] for seed in (1, 2)])
    both = assign_by_error(error_BMHW, [5.0, 3.0, 1.0], 60)
    for error_MHW, found in zip(error_BMHW, both, strict=True):
        alone = assign_by_error(error_MHW[None], [5.0, 3.0, 1.0], 60)[0]
        assert torch.equal(alone, found)


@pytest.mark.parametrize("prices_M", [[2.0], [2.0, 1.0, 0.5], [1.0, 2.0]])
def test_prices_that_do_not_fit(prices_M: list[float]) -> None:
    with pytest.raises(ConfigError, match="classes"):
        assign_by_error(torch.zeros(1, 2, 3, 3), prices_M)
    with pytest.raises(ConfigError, match="nan"):
        assign_by_error(torch.zeros(1, 2, 3, 3), [2.0, 1.0], math.nan)

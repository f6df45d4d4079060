"""Eq. 6 and 7 by hand."""

import math

import pytest
import torch

from pcsr_lightning.training import SquaredError, average_loss


def test_squared_error_is_weighted() -> None:
    a, b = torch.tensor([[[0.0, 1.0]] * 3]), torch.tensor([[[0.5, 1.0]] * 3])
    assert SquaredError()(a, b).item() == 20 * 0.25 / 2
    assert SquaredError(weight=2.0)(a, b).item() == 2 * 0.25 / 2


def test_average_loss_of_two_classes_is_the_published_one() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 2, 25)
    heavy = logits.softmax(1)[:, 0].sum()
    target = 4 * 25 / 2
    assert average_loss(logits).item() == pytest.approx(float((heavy - target).abs() / target))


def test_average_loss_of_three_classes() -> None:
    prob = torch.tensor([0.5, 0.3, 0.2])
    logits = prob.log()[None, :, None].expand(2, 3, 7)
    expected = (abs(0.5 - 1 / 3) + abs(0.3 - 1 / 3) + abs(0.2 - 1 / 3)) * 3 / 3
    assert average_loss(logits).item() == pytest.approx(expected, rel=1e-5)


def test_equal_shares_cost_nothing() -> None:
    assert average_loss(torch.zeros(2, 4, 9)).item() == pytest.approx(0, abs=1e-6)


def test_average_loss_over_ranks_is_that_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    logits = torch.randn(8, 3, 50, dtype=torch.float64)
    other = logits[4:].softmax(1).sum(dim=(0, 2))
    split = average_loss(logits[:4], lambda sums: sums + other)
    assert math.isclose(split.item(), average_loss(logits).item(), rel_tol=1e-12)


def test_shares_are_told_apart_in_bfloat16() -> None:
    """A tenth of a percent off the target, which bfloat16 sums would round away."""
    logits = torch.zeros(1, 2, 100_000, dtype=torch.bfloat16)
    logits[:, 0, :200] = 20.0  # these choose class 0 for sure: 100 pixels more than half
    assert average_loss(logits).item() == pytest.approx(100 / 50_000, rel=1e-3)

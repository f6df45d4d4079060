"""Pictures too large to keep a number of every pixel: what counts decide, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pcsr_lightning.inference import all_heavy_flops, upscale
from pcsr_lightning.networks import PCSR
from pcsr_lightning.routing import scores

MakeNetwork = Callable[..., PCSR]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``upscale`` as for larger pictures."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(scores, "SCORE_BYTES", 0)
            return upscale(*args, **kwargs)

    return call


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("routing", [{"adaptive": True}, {"budget": 0.7}])
@pytest.mark.parametrize("scale", [2.5, 4])
def test_nearly_the_same_pixels(
    make_network: MakeNetwork,
    counting: Callable[..., Any],
    num_classes: int,
    routing: dict[str, Any],
    scale: float,
) -> None:
    model = make_network("fsrcnn", num_classes)
    lr = torch.rand(2, 3, 24, 30, generator=torch.Generator().manual_seed(1))
    exact = upscale(model, lr, scale, refine=False, **routing)
    found = counting(model, lr, scale, refine=False, **routing)
    same = found.assignment == exact.assignment
    assert same.float().mean() > 0.995
    assert len(exact.assignment.unique()) == num_classes
    same_B3HW = same[:, None].expand_as(found.image)
    assert (found.image - exact.image)[same_B3HW].abs().max() < 1e-5
    if "budget" in routing:
        size = (found.image.shape[-2], found.image.shape[-1])
        heavy = all_heavy_flops(model, (24, 30), size, 2).gmacs
        assert 0.699 * heavy < found.flops.gmacs <= 0.7 * heavy


@pytest.mark.parametrize("routing", [{"adaptive": True}, {"budget": 0.7}])
def test_strips_change_next_to_nothing(
    make_network: MakeNetwork, counting: Callable[..., Any], routing: dict[str, Any]
) -> None:
    model = make_network("fsrcnn", 2)
    lr = torch.rand(1, 3, 31, 26, generator=torch.Generator().manual_seed(2))
    whole = counting(model, lr, 3, **routing)
    strips = counting(model, lr, 3, tile_rows=4, **routing)
    assert (whole.assignment != strips.assignment).float().mean() < 1e-3
    assert whole.flops.gmacs == pytest.approx(strips.flops.gmacs, rel=2e-2)


@pytest.mark.parametrize(
    ("budget", "expected"), [(0.01, 1), (0.9999, None), (1.0, 0)], ids=["below", "near", "all"]
)
def test_the_ends_of_a_budget(
    make_network: MakeNetwork, counting: Callable[..., Any], budget: float, expected: int | None
) -> None:
    model = make_network("fsrcnn", 2)
    lr = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(3))
    exact, found = upscale(model, lr, 2, budget=budget), counting(model, lr, 2, budget=budget)
    assert found.flops == exact.flops
    assert found.shares == exact.shares
    if expected is not None:
        assert found.assignment.unique().tolist() == [expected]


def test_a_plain_picture(make_network: MakeNetwork, counting: Callable[..., Any]) -> None:
    """One difficulty (but for the borders) is not told apart by rounding errors alone."""
    model = make_network("fsrcnn", 2)
    lr = torch.full((1, 3, 20, 20), 0.5)
    for routing in ({"adaptive": True}, {"budget": 0.8}):
        found = counting(model, lr, 2, **routing)
        assert bool(torch.isfinite(found.image).all())
        assert sum(found.shares) == pytest.approx(1)

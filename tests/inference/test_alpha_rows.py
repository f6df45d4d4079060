"""Transparency: as sharp as the colours, exact where nothing changes, and invisible pixels free."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.images import ColourRows, Picture, bicubic
from pcsr_lightning.inference import (
    Execution,
    RoutingConfig,
    Session,
    upscale_rows,
    upscaled_alpha,
)
from pcsr_lightning.networks import PCSR
from pcsr_lightning.routing import scores


@pytest.fixture(scope="module")
def model() -> PCSR:
    found = pcsr_lightning.load("carn-pcsr-multi")
    assert isinstance(found, PCSR)
    return found


def disc(size: int, radius: float) -> Tensor:
    """How much of each pixel a disc covers, (1, size, size), by 8 x 8 samples."""
    at = (torch.arange(8 * size) + 0.5) / 8 - size / 2
    inside = (at[:, None] ** 2 + at**2 < radius**2).float()
    return inside.view(1, size, 8, size, 8).mean((2, 4))


def alpha_of(
    model: PCSR, alpha: Tensor, scale: float = 4, rows: int = 10, **options: int
) -> Tensor:
    size = round(alpha.shape[1] * scale), round(alpha.shape[2] * scale)
    with upscaled_alpha(model, alpha, size, RoutingConfig(), Execution(**options), bits=8) as found:
        parts = [found.take(min(rows, size[0] - top)) for top in range(0, size[0], rows)]
    return torch.cat(parts, dim=1).float() / 255


def test_edges_are_sharper_than_bicubic(model: PCSR) -> None:
    low, high = disc(40, 13.3), disc(160, 4 * 13.3)
    found = alpha_of(model, low)
    error, plain = ((x - high).square().mean() for x in (found, bicubic(low, (160, 160))))
    assert error < 0.7 * plain


@pytest.mark.parametrize("scale", [4, 2.5])
def test_inside_and_outside_stay_exact(model: PCSR, scale: float) -> None:
    low = disc(24, 8)
    found = alpha_of(model, low, scale)
    n = found.shape[1]
    near = ((torch.arange(n) + 0.5) / scale).long()
    for value, pool in ((1.0, low.eq(1)), (0.0, low.eq(0))):
        all_round = -torch.nn.functional.max_pool2d(-pool.float(), 3, 1, 1)
        settled = all_round[0][near][:, near] == 1
        assert settled.float().mean() > 0.1
        assert (found[0][settled] == value).all()


def test_strips_and_whole_numbers_change_nothing(model: PCSR) -> None:
    low = (disc(24, 8) * 255).round().to(torch.uint8)
    whole = alpha_of(model, low.float() / 255, rows=96)
    assert torch.equal(alpha_of(model, low, rows=7, tile_rows=5), whole)


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
def test_what_is_everywhere_the_same_costs_nothing(model: PCSR, value: float) -> None:
    alpha = torch.full((1, 9, 7), value)
    with upscaled_alpha(model, alpha, (36, 28), RoutingConfig(), Execution()) as found:
        assert found.flops.gmacs == 0
        assert torch.equal(found.take(36), torch.full((1, 36, 28), value))


ROUTINGS = [
    RoutingConfig(),
    RoutingConfig(k=-5.0),
    RoutingConfig("adaptive"),
    RoutingConfig(budget=0.99),
    RoutingConfig(budget=0.8),
    RoutingConfig(budget=0.6),
    RoutingConfig(fixed_class=0),
]


@pytest.mark.parametrize("routing", ROUTINGS, ids=str)
@pytest.mark.parametrize("scale", [4, 2.5])
@pytest.mark.parametrize("counted", [False, True])
def test_invisible_pixels_are_not_paid_for(
    model: PCSR,
    routing: RoutingConfig,
    scale: float,
    counted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They take the lightest class, and their share of a budget goes to others."""
    monkeypatch.setattr(scores, "SCORE_BYTES", 0 if counted else 2**27)
    rgb = torch.rand(3, 30, 20, generator=torch.Generator().manual_seed(0))
    alpha = torch.ones(1, 30, 20)
    alpha[:, 10:] = 0
    size = round(30 * scale), round(20 * scale)
    seen = {}
    for kind, picture in (("opaque", Picture(rgb)), ("half", Picture(rgb, alpha))):
        classes: list[Tensor] = []
        done = upscale_rows(
            model,
            ColourRows(picture),
            size,
            lambda _, class_nW, classes=classes: classes.append(class_nW),
            routing,
            Execution(tile_rows=7),
        )
        seen[kind] = torch.cat(classes), done
    (whole, all_paid), (found, done) = seen["opaque"], seen["half"]
    first = next(i for i in range(size[0]) if (i + 0.5) / scale >= 11)
    assert (found[first:] == model.num_classes - 1).all()
    assert done.flops.gmacs <= all_paid.flops.gmacs
    if routing.fixed_class == 0:
        assert (found[:first] == 0).all()
    if routing.mode == "budget":
        heavy = [(x[:first] == 0).float().mean() for x in (whole, found)]
        assert heavy[1] > heavy[0] or heavy[0] in (0, 1)
        if 0 < heavy[1] < 1:
            assert done.flops.gmacs == pytest.approx(all_paid.flops.gmacs, rel=0.01)


def test_pictures_that_hide_nothing_are_routed_as_before(model: PCSR) -> None:
    rgb = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(1))
    found: list[list[Tensor]] = []
    for alpha in (None, torch.full((1, 12, 16), 1.0)):
        rows: list[Tensor] = []
        upscale_rows(
            model,
            ColourRows(Picture(rgb, alpha)),
            (48, 64),
            lambda *both, rows=rows: rows.extend(both),
            RoutingConfig("adaptive"),
            Execution(),
        )
        found.append(rows)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("routing", ROUTINGS, ids=str)
def test_a_session_routes_them_alike(model: PCSR, routing: RoutingConfig) -> None:
    rgb = torch.rand(3, 18, 20, generator=torch.Generator().manual_seed(2))
    picture = ColourRows(Picture(rgb, torch.ones(1, 18, 20).index_fill(1, torch.arange(6), 0)))
    unseen = picture.unseen(0, 18)
    rows: list[Tensor] = []
    upscale_rows(
        model, picture, (72, 80), lambda _, c: rows.append(c), routing, Execution(tile_rows=18)
    )
    session = Session(model, picture.rows(0, 18)[None], unseen_hw=unseen)
    assert torch.equal(session.run(routing).assignment[0], torch.cat(rows))
    assert (session.assign(routing)[0, :20] == model.num_classes - 1).all()

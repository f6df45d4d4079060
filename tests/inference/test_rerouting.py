"""Rerouting: the same as a fresh run, whatever was routed before, and only new pixels are paid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pcsr_lightning.errors import ConfigError, PCSRError
from pcsr_lightning.inference import Execution, RoutingConfig, Session, upscale_routings
from pcsr_lightning.inference import upscaling as fresh
from pcsr_lightning.inference.class_images import NO_CLASS
from pcsr_lightning.inference.kernels import IntegerScale, Strip
from pcsr_lightning.inference.upscale_routings import RoutedStrip
from pcsr_lightning.networks import PCSR, build_network, default_config

# Matrix products of other row counts may be summed in another order.
ROUNDING = 1e-6

ROUTINGS = [
    RoutingConfig(budget=0.2),
    RoutingConfig(budget=0.6),
    RoutingConfig(budget=0.9),
    RoutingConfig(budget=1.0),
    RoutingConfig(budget=1e-6),
    RoutingConfig(k=0.0),
    RoutingConfig(k=-2.0),
    RoutingConfig(k=1.5),
    RoutingConfig("adaptive"),
    RoutingConfig(fixed_class=0),
    RoutingConfig(fixed_class=1),
    RoutingConfig(budget=0.5, refine=False),
    RoutingConfig(budget=0.5, cost="proportional"),
]


@pytest.fixture(scope="module")
def three() -> PCSR:
    torch.manual_seed(3)
    built = build_network(default_config("fsrcnn", 3))
    assert isinstance(built, PCSR)
    return built.eval()


def picture(h: int, w: int, seed: int = 0) -> Tensor:
    """Smooth on the left and busy on the right, so that classes differ."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 3, h, w, generator=generator)
    ramp = torch.linspace(0, 1, w)
    return (0.5 * (1 - ramp) + noise * ramp).clamp(0, 1)


def check(model: PCSR, image: Tensor, session: Session, routing: RoutingConfig) -> None:
    ours = session.run(routing)
    expected = fresh.upscale_by(model, image, routing, Execution(), size=session.size)
    assert torch.equal(ours.assignment, expected.assignment), routing
    assert float((ours.image - expected.image).abs().max()) <= ROUNDING, routing
    assert ours.flops == expected.flops, routing
    assert ours.shares == pytest.approx(expected.shares), routing


@pytest.mark.parametrize("scale", [4, 2.5, 1])
def test_each_routing_after_all_others(released: PCSR, scale: float) -> None:
    image = picture(30, 44)
    size = (round(30 * scale), round(44 * scale))
    session = Session(released, image, size=size)
    for routing in [*ROUTINGS, *reversed(ROUTINGS)]:
        check(released, image, session, routing)


def test_strips(released: PCSR) -> None:
    """A picture of several strips, so that seams between them show if there are any."""
    image = picture(400, 60)
    session = Session(released, image, size=(800, 120))
    assert session._engine.rows < 400
    for routing in (ROUTINGS[1], ROUTINGS[2], ROUTINGS[0]):
        check(released, image, session, routing)


def test_every_class_at_once(three: PCSR) -> None:
    """A sweep selects from what every class has computed."""
    image = torch.cat([picture(12, 9, 1), picture(12, 9, 2)])
    session = Session(three, image, size=(36, 27))
    session.compute_every_class()
    for routing in ROUTINGS:
        check(three, image, session, routing)


@pytest.mark.parametrize("tile_rows", [None, 3])
def test_many_routings_in_strips(three: PCSR, tile_rows: int | None) -> None:
    """One pass over the picture gives what each routing gives alone, and sees all logits."""
    image, execution = picture(20, 17), Execution(tile_rows=tile_rows)
    routings = [r for r in ROUTINGS if not r.rule.whole_picture]
    strips: list[RoutedStrip] = []
    done = upscale_routings(three, image, 4, routings, strips.append, execution)
    sr_3MHW = torch.cat([strip.sr_3MnW for strip in strips], 2)
    for i, (routing, cost) in enumerate(zip(routings, done, strict=True)):
        alone = fresh.upscale_by(three, image, routing.replace(refine=False), execution)
        class_HW = torch.cat([strip.classes[i] for strip in strips])
        assert torch.equal(class_HW, alone.assignment[0])
        sr_3HW = sr_3MHW.gather(1, class_HW.long().expand(3, 1, -1, -1))[:, 0]
        torch.testing.assert_close(sr_3HW.clamp(0, 1), alone.image[0], atol=2e-6, rtol=0)
        assert cost.shares == alone.shares
        assert cost.flops == alone.flops
    logits = Session(three, image, 4).logits
    seen = torch.cat([strip.logits_1MnW for strip in strips], 2)
    torch.testing.assert_close(seen, logits, atol=1e-5, rtol=0)


def test_classes_compute_only_pixels_that_some_routing_asks_for(
    three: PCSR, asked: list[int]
) -> None:
    image = picture(20, 17)
    upscale_routings(three, image, 4, [RoutingConfig(fixed_class=1)], lambda _: None)
    assert asked == [0, 80 * 68, 0]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.floats(0.01, 1.0), min_size=2, max_size=4),
    st.integers(1, 12),
    st.integers(1, 12),
    st.floats(1, 4),
    st.integers(0, 9),
)
def test_any_order_of_budgets(
    three: PCSR, budgets: list[float], h: int, w: int, scale: float, seed: int
) -> None:
    image = picture(h, w, seed)
    session = Session(three, image, size=(round(h * scale), round(w * scale)))
    for budget in budgets:
        check(three, image, session, RoutingConfig(budget=budget))
        check(three, image, session, RoutingConfig(budget=budget, cost="proportional"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pixels upsamplers were asked for, call by call."""
    asked: list[int] = []
    residual = IntegerScale.residual

    def counting(self: IntegerScale, feat: Tensor, strip: Strip, class_BQ: Tensor) -> Tensor:
        asked.append(int((class_BQ != NO_CLASS).sum()))
        return residual(self, feat, strip, class_BQ)

    monkeypatch.setattr(IntegerScale, "residual", counting)
    return asked


def test_only_new_pixels_are_computed(released: PCSR, asked: list[int]) -> None:
    session = Session(released, picture(24, 32), size=(96, 128))
    first = session.run(RoutingConfig(budget=0.5))
    assert sum(asked) == 96 * 128
    asked.clear()
    second = session.run(RoutingConfig(budget=0.7))
    changed = int((first.assignment != second.assignment).sum())
    assert 0 < sum(asked) == changed < 96 * 128
    asked.clear()
    session.run(RoutingConfig(budget=0.5))
    assert asked == []


class Stop(Exception):
    """Raised by a progress callback."""


def test_a_stopped_run_stops_at_once_and_loses_nothing(released: PCSR) -> None:
    image = picture(400, 60)
    told: list[float] = []

    def stop_at(limit: float, part: float) -> None:
        told.append(part)
        if part >= limit:
            raise Stop

    with pytest.raises(Stop):
        Session(released, image, size=(400, 60), progress=lambda part: stop_at(0.1, part))
    assert len(told) == 1
    session = Session(released, image, size=(400, 60))
    for limit in (0.1, 0.5, 0.9):
        with pytest.raises(Stop):
            session.run(ROUTINGS[1], progress=lambda part, limit=limit: stop_at(limit, part))
    check(released, image, session, ROUTINGS[1])
    told.clear()
    session.run(ROUTINGS[2], progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)


def test_mistakes(released: PCSR) -> None:
    with pytest.raises(ConfigError, match="each side must grow"):
        Session(released, picture(8, 8), size=(4, 4))
    with pytest.raises(ConfigError, match="no class 2"):
        Session(released, picture(8, 8), size=(16, 16)).run(RoutingConfig(fixed_class=2))
    broken = build_network(default_config("fsrcnn", 2)).eval()
    assert isinstance(broken, PCSR)
    with torch.no_grad():
        next(broken.backbone.parameters()).fill_(float("nan"))
    with pytest.raises(PCSRError, match="features"):
        Session(broken, picture(8, 8), size=(16, 16))

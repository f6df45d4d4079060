"""The oracle of real upsamplers: above every classifier, within its cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation import Measurement, make_pair, psnr, sweep
from pcsr_lightning.evaluation.curves import psnr_flops
from pcsr_lightning.evaluation.measurement import OracleCost
from pcsr_lightning.evaluation.oracle import Oracle
from pcsr_lightning.inference import RoutingConfig, Session
from pcsr_lightning.networks import PCSR
from pcsr_lightning.weights import load

BORDER = 4
ROUTINGS = st.one_of(
    st.builds(lambda k: RoutingConfig(k=k), st.floats(-5, 5)),
    st.builds(lambda b: RoutingConfig(budget=b), st.floats(0.05, 1)),
    st.builds(lambda q: RoutingConfig(quantile=q), st.floats(0, 1)),
    st.builds(lambda j: RoutingConfig(fixed_class=j), st.integers(0, 1)),
    st.just(RoutingConfig("adaptive")),
)


@pytest.fixture(scope="session")
def oracle_of() -> Callable[[str], tuple[Session, Oracle, torch.Tensor]]:
    """Session, oracle and ground truth of a part of a photograph, for a released model."""

    def make(name: str) -> tuple[Session, Oracle, torch.Tensor]:
        model = load(name)
        assert isinstance(model, PCSR)
        with Image.open(SAMPLE_FOLDER / "valid" / "chelsea.png") as photograph:
            part = np.asarray(photograph.convert("RGB").crop((100, 60, 196, 140)))
        pair = make_pair(torch.from_numpy(part.copy()).permute(2, 0, 1), (4.0, 4.0))
        session = Session(model, pair.lr_13hw, 4)
        return session, Oracle(model, pair, (4.0, 4.0)), pair.hr_13HW

    return cache(make)


@pytest.mark.parametrize("name", ["fsrcnn-pcsr-x4", "carn-pcsr-x4-m3"])
@given(routing=ROUTINGS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_never_below_a_classifier_and_never_dearer(
    name: str,
    routing: RoutingConfig,
    oracle_of: Callable[[str], tuple[Session, Oracle, torch.Tensor]],
) -> None:
    session, oracle, hr = oracle_of(name)
    routed = session.run(routing.replace(refine=False))
    bound, best = oracle.at_cost_of(routing), oracle.at_any_cost()
    own = oracle.routed(routing)
    assert (own.flops, own.shares) == (routed.flops, routed.shares)
    assert oracle.decibels(own) == psnr(routed.image, hr, BORDER)
    assert oracle.decibels(best) >= oracle.decibels(bound) >= oracle.decibels(own)
    assert bound.flops.gflops_published <= routed.flops.gflops_published * (1 + 1e-12)
    if session.num_classes == 2 and routing.fixed_class is None:
        assert bound.shares[0] <= routed.shares[0]


def test_the_errors_are_those_of_psnr(
    oracle_of: Callable[[str], tuple[Session, Oracle, torch.Tensor]],
) -> None:
    session, oracle, hr = oracle_of("fsrcnn-pcsr-x4")
    H, W = session.size
    for j in range(2):
        image = session.run(RoutingConfig(fixed_class=j)).image
        pixels = 3 * (H - 2 * BORDER) * (W - 2 * BORDER)
        mse = float(oracle.error_MHW[j].sum(dtype=torch.float64)) / pixels
        assert 10 * np.log10(255**2 / mse) == pytest.approx(psnr(image, hr, BORDER), abs=1e-5)
    best = oracle.at_any_cost().class_HW
    assert (best[:BORDER] == 1).all()  # what nobody compares is not paid for
    assert (best[:, -BORDER:] == 1).all()
    assert 0 < float((best == 0).float().mean()) < 1


def test_regret_adds_up_to_what_the_classifier_loses(
    oracle_of: Callable[[str], tuple[Session, Oracle, torch.Tensor]],
) -> None:
    session, oracle, hr = oracle_of("fsrcnn-pcsr-x4")
    routing = RoutingConfig(k=0.2)
    regret, lighter = oracle.regret(routing)
    image = session.run(routing.replace(refine=False)).image
    quality = psnr(image, hr, BORDER), oracle.decibels(oracle.at_cost_of(routing))
    own, bound = (10 ** (-decibels / 10) for decibels in quality)
    H, W = session.size
    pixels = 3 * (H - 2 * BORDER) * (W - 2 * BORDER)
    assert float(regret.sum()) / pixels / 255**2 == pytest.approx(own - bound, rel=1e-3)
    assert own > bound
    shown = oracle.regret_map(routing)
    assert shown.shape == (3, H, W)
    assert 0 <= float(shown.min()) <= float(shown.max()) <= 1
    redder = shown[0] - shown[2]
    changed = regret != 0
    assert (redder[changed & (lighter > 0)] > 0).all()
    assert (redder[changed & (lighter < 0)] < 0).all()
    assert (redder[~changed].abs() < 1e-6).all()
    assert (regret[lighter > 0] > 0).all()  # the oracle pays for what is better only
    assert (regret[lighter < 0] > 0).any()  # a heavier class that is worse
    assert (regret[lighter < 0] < 0).any()  # and one that was not worth its cost


def test_a_sweep_with_the_oracle(released: PCSR, tmp_path: Path) -> None:
    with Image.open(SAMPLE_FOLDER / "valid" / "chelsea.png") as photograph:
        photograph.crop((0, 0, 160, 120)).save(tmp_path / "a.png")
        photograph.crop((160, 100, 300, 220)).save(tmp_path / "b.png")
    routings = [RoutingConfig(k=k) for k in (-1.0, 0.0, 1.0)]
    seen = []
    found = sweep(
        released, tmp_path, routings, oracle=True, on_oracle=lambda name, _: seen.append(name)
    )
    assert seen == ["a.png", "b.png"]
    assert [p.routing for p in found.points] == routings
    assert [p.routing_name for p in found.oracle] == [
        "oracle at the cost of k = -1",
        "oracle at the cost of k = 0",
        "oracle at the cost of k = 1",
        "oracle at any cost",
    ]
    for own, bound in zip(found.unrefined, found.oracle[:-1], strict=True):
        assert own.routing == bound.routing
        assert bound.psnr > own.psnr
        assert bound.gflops_published <= own.gflops_published * (1 + 1e-12)
    assert found.oracle[-1].psnr >= max(p.psnr for p in found.oracle)
    plain = sweep(released, tmp_path, routings)
    assert plain.points == found.points
    assert (plain.oracle, plain.unrefined) == ((), ())
    with pytest.raises(ConfigError, match="protocol=whole"):
        sweep(released, tmp_path, routings, protocol="overlapped", oracle=True)


def test_the_bound_is_dotted_and_in_the_colour_of_its_curve() -> None:
    def point(gflops: float, db: float, cost: OracleCost | None = None) -> Measurement:
        routing = RoutingConfig(k=gflops)
        return Measurement(psnr=db, gflops_published=gflops, routing=routing, oracle=cost)

    bound = [point(1, 30.5, OracleCost.SAME), point(3, 31, OracleCost.ANY)]
    figure = psnr_flops([point(1, 30), point(2, 30.2)], name="m", bound=bound)
    own, above = figure.axes[0].get_lines()
    assert (own.get_label(), above.get_label()) == ("m", "m, oracle")
    assert (own.get_linestyle(), above.get_linestyle()) == ("-", ":")
    assert own.get_color() == above.get_color()
    assert list(above.get_ydata()) == [30.5, 31]
    assert {text.get_text() for text in figure.axes[0].texts} == {"k = 1", "k = 2"}

"""The page's all-heavy run: every pixel timed once, those that larger budgets need first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.app.all_heavy import AllHeavyRun
from pcsr_lightning.inference import RoutingConfig, Session, upscale_by
from pcsr_lightning.inference.class_images import NO_CLASS
from pcsr_lightning.inference.kernels import IntegerScale, Strip
from pcsr_lightning.networks import PCSR


class Stop(Exception):
    """Raised by a progress callback."""


@pytest.fixture(scope="module")
def model() -> PCSR:
    loaded = pcsr_lightning.load("fsrcnn-pcsr-x4")
    assert isinstance(loaded, PCSR)
    return loaded


def picture(h: int, w: int) -> Tensor:
    """Smooth on the left and busy on the right, so that classes differ."""
    noise, ramp = torch.rand(1, 3, h, w), torch.linspace(0, 1, w)
    return (0.5 * (1 - ramp) + noise * ramp).clamp(0, 1)


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


def test_all_heavy_fills_the_heaviest_class(model: PCSR) -> None:
    image = picture(24, 32)
    session = Session(model, image, size=(96, 128))
    before = session.run(RoutingConfig(budget=0.5))
    heavy = AllHeavyRun(session)
    image_3HW = heavy.run()
    expected = upscale_by(model, image, RoutingConfig(fixed_class=0), size=(96, 128))
    assert float((image_3HW - expected.image[0]).abs().max()) <= 1e-6
    assert heavy.seconds > 0
    assert bool(session.class_images.done_MBHW[0].all())
    after = session.run(RoutingConfig(budget=0.5))
    assert float((after.image - before.image).abs().max()) <= 1e-6


def test_all_heavy_begins_with_what_larger_budgets_need(model: PCSR, asked: list[int]) -> None:
    """Each pixel once, the new ones first; what was done before a stop is not done again."""
    session = Session(model, picture(400, 60), size=(800, 120))
    run = session.run(RoutingConfig(budget=0.7))
    new = int((run.assignment != 0).sum())
    heavy = AllHeavyRun(session)
    asked.clear()
    told: list[float] = []

    def stop_half_way(part: float) -> None:
        told.append(part)
        if part == 0.5:
            raise Stop

    with pytest.raises(Stop):
        heavy.run(stop_half_way)
    assert (len(asked), sum(asked)) == (len(told), new)
    assert len(told) > 1
    session.run(RoutingConfig(budget=1.0))
    assert sum(asked) == new
    heavy.run(told.append)
    assert sum(asked) == 800 * 120
    assert told[-1] == 1

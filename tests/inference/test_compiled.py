"""Networks that torch.compile has wrapped are upscaled and saved like any other."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.small import small_original, small_pcsr
from torch import nn

from pcsr_lightning import upscale
from pcsr_lightning.inference import Session, features
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.routing import RoutingConfig
from pcsr_lightning.weights import load_model_file, save


def wrapped(module: nn.Module) -> nn.Module:
    compiled = torch.compile(module, backend="eager")
    assert isinstance(compiled, nn.Module)
    return compiled


def with_wrapped_backbone(model: PCSR | Original) -> PCSR | Original:
    model.backbone = wrapped(model.backbone)  # type: ignore[assignment]
    return model


def with_wrapped_parts(model: PCSR | Original) -> PCSR | Original:
    assert isinstance(model, PCSR)
    model.upsamplers[0] = wrapped(model.upsampler(0))
    assert model.classifier is not None
    model.classifier = wrapped(model.classifier)  # type: ignore[assignment]
    return model


def compiled_in_place(model: PCSR | Original) -> PCSR | Original:
    model.backbone.compile(backend="eager")
    model.compile(backend="eager")
    return model


def wrapped_whole(model: PCSR | Original) -> PCSR | Original:
    return wrapped(with_wrapped_backbone(model))  # type: ignore[return-value]


WAYS = [with_wrapped_backbone, compiled_in_place, wrapped_whole]


@pytest.mark.parametrize("make", [small_pcsr, small_original])
@pytest.mark.parametrize("way", WAYS)
def test_upscale(way: Callable, make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    lr = torch.rand(1, 3, 12, 10)
    expected = upscale(make(), lr, 4)
    monkeypatch.setattr("pcsr_lightning.inference.flops._KNOWN", {})  # counted anew
    monkeypatch.setattr("pcsr_lightning.inference.flops._ORIGINALS", {})
    model = way(make())
    found = upscale(model, lr, 4)
    assert torch.allclose(found.image, expected.image, atol=1e-5)
    assert torch.equal(found.assignment, expected.assignment)
    assert found.flops == expected.flops
    several = upscale(model, lr.expand(2, -1, -1, -1), 4)  # not streamed: runs what was compiled
    assert torch.allclose(several.image[1:], expected.image, atol=1e-5)


@pytest.mark.parametrize("way", [*WAYS, with_wrapped_parts])
def test_a_session(way: Callable) -> None:
    lr = torch.rand(1, 3, 12, 10)
    expected = Session(small_pcsr(), lr, 2.5).run(RoutingConfig(budget=0.8))
    found = Session(way(small_pcsr()), lr, 2.5).run(RoutingConfig(budget=0.8))
    assert torch.allclose(found.image, expected.image, atol=1e-5)


def test_a_compiled_backbone_is_streamed_and_stays_compiled() -> None:
    model = with_wrapped_backbone(small_pcsr())
    compiled = model.backbone
    rows = features.feature_rows(model.backbone, None, torch.rand(1, 3, 8, 8), torch.float32)
    assert isinstance(rows, features.StreamedRows)
    assert model.backbone is compiled


@pytest.mark.parametrize("make", [small_pcsr, small_original])
@pytest.mark.parametrize("way", WAYS)
def test_a_saved_model_knows_nothing_of_it(way: Callable, make: Callable, tmp_path: Path) -> None:
    loaded, _ = load_model_file(save(way(make()), tmp_path / "model"))
    expected = make().state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(v, expected[k]) for k, v in loaded.state_dict().items())

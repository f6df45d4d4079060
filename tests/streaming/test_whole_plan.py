"""A plan on whole pictures, with padded channels, gives what the network gives."""

from __future__ import annotations

import logging

import pytest
import torch
from tests.small import small_original, small_pcsr
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.inference import Execution, RoutingConfig, features, fused_queries, upscale_by
from pcsr_lightning.networks import build_network
from pcsr_lightning.networks.backbones import CARN, FSRCNN, SRResNet
from pcsr_lightning.streaming import WholePlan, plan_rows


class Everything(nn.Module):
    """What the backbones do not have: channels that cannot be padded, and shuffles."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, groups=3)
        self.prelu = nn.PReLU(6)
        self.norm = nn.BatchNorm2d(6)
        self.mix = nn.Conv2d(12, 6, 1)
        self.up = nn.ConvTranspose2d(6, 8, 4, stride=2, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.gain = nn.Parameter(torch.rand(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.prelu(self.first(x))
        z = torch.sigmoid(self.norm(y))
        y = self.mix(torch.cat([y, z], dim=1)) + z
        return self.shuffle(F.leaky_relu(self.up(y), 0.1)) * self.gain


NETWORKS = {
    "carn": lambda: CARN(nf=20, group=4),
    "fsrcnn": lambda: FSRCNN(d=12, s=5, m=2),
    "srresnet": lambda: SRResNet(nf=8, blocks=2),
    "everything": Everything,
}


@torch.no_grad()
def trained(network: nn.Module) -> nn.Module:
    """Statistics and parameters that are not those of the start."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
        if isinstance(part, nn.PReLU):
            part.weight.uniform_(0, 0.5)
    return network.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_it_equals_the_network(name: str) -> None:
    torch.manual_seed(0)
    network = trained(NETWORKS[name]())
    x_B3hw = torch.rand(2, 3, 13, 7)
    with torch.no_grad():
        found = WholePlan(plan_rows(network))(x_B3hw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        expected = network(x_B3hw)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 1e-5 * max(1, float(expected.abs().max()))


@pytest.mark.parametrize("tile_rows", [None, 4])
def test_upscaling_by_it(tile_rows: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backbones and original models, in tiles too."""
    monkeypatch.setattr(fused_queries, "has_triton", lambda _: False)
    lr, execution = torch.rand(2, 3, 40, 6), Execution(tile_rows=tile_rows, fused=True)
    for model in (small_pcsr("carn"), small_pcsr("fsrcnn"), small_original("carn")):
        with monkeypatch.context() as patch:
            patch.setattr(features.TiledRows, "_run", None)  # the plain way is not taken
            found = upscale_by(model, lr, RoutingConfig(fixed_class=0), execution)
        plain = upscale_by(model, lr, RoutingConfig(fixed_class=0), Execution(fused=False))
        assert float((found.image - plain.image).abs().max()) < 1e-5


def test_a_plan_that_differs_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(WholePlan, "__call__", lambda self, x: x.new_ones(1, 9, 11, 8))
    model, lr = small_pcsr("carn"), torch.rand(1, 3, 9, 6)
    found = upscale_by(model, lr, RoutingConfig(fixed_class=0), Execution(fused=True), 2)
    plain = upscale_by(model, lr, RoutingConfig(fixed_class=0), Execution(fused=False), 2)
    assert float((found.image - plain.image).abs().max()) < 1e-5
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == 1
    assert said[0].startswith("CARN is not planned for a GPU: error ")


def test_a_network_that_cannot_be_planned_runs_plainly() -> None:
    config = {"name": "bsrn", "nf": 8, "blocks": 1}
    model = build_network(
        {"kind": "original", "backbone": config, "scale": 2, "mean": [0, 0, 0]}
    ).eval()
    lr = torch.rand(1, 3, 9, 6)
    found = upscale_by(model, lr, RoutingConfig(), Execution(fused=True), 2)
    assert torch.equal(found.image, upscale_by(model, lr, RoutingConfig(), Execution(), 2).image)

"""Dead units come back to life, and nothing else of the network changes by it."""

from pathlib import Path

import pytest
import torch
from tests.training.test_stages import Crops, fit, made
from torch import nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import PCSR
from pcsr_lightning.networks.pixel_mlp import plain_inputs
from pcsr_lightning.training import FirstStage
from pcsr_lightning.training.initialization import stage_network
from pcsr_lightning.training.reinitialization import reinitialize_dead_units

SIZE = (32, 32)
SMALL = {"args": {"d": 8, "s": 4, "m": 1}, "upsamplers": [[12, 10, 6], [8]]}
OFF = -100.0


def network(*dead: tuple[int, int]) -> PCSR:
    """A first stage's network whose given (hidden layer, unit) are never on."""
    torch.manual_seed(1)
    found = stage_network("1", "fsrcnn", 2, **SMALL)
    assert isinstance(found, PCSR)
    for layer, unit in dead:
        biases(found)[layer].data[unit] = OFF
    return found


def biases(net: PCSR) -> list[nn.Parameter]:
    mlp = net.upsampler(0)
    return [mlp.project.bias, *(m.bias for m in mlp.tail if isinstance(m, nn.Linear))]


def again(net: PCSR, seed: int = 0, queries: torch.Tensor | None = None) -> list[int]:
    draws = torch.Generator().manual_seed(seed)
    return reinitialize_dead_units(net, net.upsampler(0), Crops()[0].lr_B3hw, SIZE, queries, draws)


def never_on(net: PCSR, queries: torch.Tensor | None) -> list[int]:
    """Counted in the plain form of the MLP, on concatenated inputs."""
    mlp, lr = net.upsampler(0), Crops()[0].lr_B3hw
    x = plain_inputs(net.features(lr), net.grid((8, 8), SIZE))
    x = (x if queries is None else x[:, queries]).flatten(0, 1)
    weight = torch.cat([mlp.project.weight, mlp.offset.weight], dim=1)
    x = nn.functional.linear(x, weight, mlp.project.bias)
    found = []
    for layer in mlp.tail:
        if isinstance(layer, nn.ReLU):
            found.append(int((x.amax(0) <= 0).sum()))
            x = x.relu()
        else:
            x = layer(x)
    return found


DEAD = ((0, 3), (0, 11), (1, 0), (2, 5))


@pytest.mark.parametrize("queries", [None, torch.arange(0, 1024, 7)])
def test_the_dead_live_and_the_picture_stays(queries: torch.Tensor | None) -> None:
    net = network(*DEAD)
    lr, _ = Crops()[0]
    before = net(lr, SIZE, queries).mixed()
    expected = never_on(net, queries)
    assert all(count >= least for count, least in zip(expected, (2, 1, 1), strict=True))
    assert again(net, queries=queries) == expected
    assert never_on(net, queries) == [0, 0, 0]
    torch.testing.assert_close(net(lr, SIZE, queries).mixed(), before)
    assert again(net, queries=queries) == [0, 0, 0]
    for layer, unit in DEAD:
        assert biases(net)[layer][unit] != OFF


def test_the_living_keep_their_weights_and_new_units_learn() -> None:
    net = network((1, 4))
    again(net)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    biases(net)[1].data[4] = OFF
    assert again(net, seed=5) == [0, 1, 0]
    first, second = (f"upsamplers.0.tail.{n}" for n in (1, 3))
    for name, was in before.items():
        now = net.state_dict()[name]
        if name in (f"{first}.weight", f"{first}.bias"):
            rest = [n for n in range(10) if n != 4]
            assert torch.equal(now[rest], was[rest])
            assert not torch.equal(now[4], was[4])
        elif name == f"{second}.weight":
            rest = [n for n in range(10) if n != 4]
            assert torch.equal(now[:, rest], was[:, rest])
            assert (now[:, 4] == 0).all()
        else:
            assert torch.equal(now, was), name
    net(Crops()[0].lr_B3hw, SIZE).mixed().square().mean().backward()
    grown = net.upsampler(0).tail[3].weight.grad
    assert grown is not None
    assert grown[:, 4].abs().max() > 0


def test_a_layer_without_a_living_unit_is_left() -> None:
    net = network(*((1, unit) for unit in range(10)))
    before = biases(net)[1].clone()
    assert again(net)[1] == 10
    assert torch.equal(biases(net)[1], before)


def test_in_training(tmp_path: Path) -> None:
    found = []
    for every in (None, 4, 4):
        net = network(*DEAD)
        torch.manual_seed(0)
        trainer = fit(made(FirstStage, net, seed=3, reinitialize_dead_units=every), tmp_path)
        logged = trainer.callback_metrics.get("train/dead_units")
        assert (logged is None) == (every is None)
        found.append(biases(net)[0].detach())
    assert found[0][3] == pytest.approx(OFF, abs=1)
    assert found[1][3].abs() < 10
    assert torch.equal(found[1], found[2])  # so a resumed run does as the uninterrupted one


def test_never_is_null() -> None:
    with pytest.raises(ConfigError, match=r"stage\.reinitialize_dead_units=0"):
        made(FirstStage, network(), reinitialize_dead_units=0)

"""Convolutions with parallel branches are plain convolutions of the folded weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import small_first_stage
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.errors import ModelFileError
from pcsr_lightning.networks import (
    PaddedTwin,
    build_network,
    count_macs,
    default_config,
    folded_state,
    is_reparameterized,
    reparameterize,
    start_from_identity,
)
from pcsr_lightning.networks.reparameterized import Branches
from pcsr_lightning.training.optim.muon import groups_of_convolutions, matrix_shape
from pcsr_lightning.weights import load_model_file

LAYERS: dict[str, dict[str, Any]] = {
    "same channels": {"out_channels": 8, "kernel_size": 3, "padding": 1},
    "groups": {"out_channels": 8, "kernel_size": 3, "padding": 1, "groups": 2},
    "depthwise": {"out_channels": 8, "kernel_size": 5, "padding": "same", "groups": 8},
    "more channels": {"out_channels": 12, "kernel_size": 5, "padding": 2, "groups": 4},
    "a row": {"out_channels": 4, "kernel_size": (1, 3), "padding": (0, 1)},
    "even": {"out_channels": 8, "kernel_size": (2, 4), "bias": False},
    "strided": {"out_channels": 8, "kernel_size": 3, "stride": 2, "padding": 1},
    "dilated": {
        "out_channels": 8, "kernel_size": 3, "dilation": 2, "padding": 2, "padding_mode": "reflect",
    },
}  # fmt: skip


def random_branches(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, Branches):
            for p in module.parameters():
                nn.init.normal_(p)


def sum_of_branches(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Each branch by itself, where the size stays."""
    [branches] = conv.parametrizations.weight
    own = {"padding": conv.padding, "groups": conv.groups}
    chain = F.conv2d(x, branches.first[..., None, None], groups=conv.groups)
    total = F.conv2d(x, conv.parametrizations.weight.original, conv.bias, **own)
    total = total + F.conv2d(x, branches.point[..., None, None], groups=conv.groups)
    if branches.identity is not None:
        total = total + branches.identity[:, None, None] * x
    return total + F.conv2d(chain, branches.last, **own)


@pytest.mark.parametrize("name", LAYERS)
def test_it_runs_as_one_convolution(name: str) -> None:
    torch.manual_seed(0)
    conv, plain = (nn.Sequential(nn.Conv2d(8, **LAYERS[name])) for _ in range(2))
    x, before = torch.rand(2, 8, 9, 7), conv.state_dict()
    expected = conv(x)
    reparameterize(conv)
    assert torch.equal(conv(x), expected)
    assert before.keys() == folded_state(conv.state_dict()).keys()
    random_branches(conv)
    plain.load_state_dict(folded_state(conv.state_dict()))
    assert torch.equal(plain(x), conv(x))
    assert (plain(x) - expected).abs().max() > 0.1
    if expected.shape[2:] == x.shape[2:] and "dilation" not in LAYERS[name]:
        torch.testing.assert_close(conv(x), sum_of_branches(conv[0], x), atol=1e-4, rtol=1e-5)
    conv(x).square().mean().backward()
    assert all(p.grad is not None for p in conv.parameters())


def test_which_layers_have_branches() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    one, twice, tied = nn.Conv2d(4, 4, 1), conv, nn.Conv2d(4, 4, 3)
    shared = nn.Conv2d(4, 4, 3)
    shared.weight = tied.weight
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))
    network = nn.Sequential(conv, one, twice, tied, shared, normed)
    reparameterize(network)
    assert [len([*m.parameters()]) for m in network] == [6, 2, 6, 2, 2, 3]
    start_from_identity(network)
    x = torch.rand(1, 4, 5, 5)
    weight = conv.parametrizations.weight.original
    torch.testing.assert_close(conv(x), F.conv2d(x, weight, conv.bias, padding=1) + x)


def test_costs_are_those_of_the_plain_network() -> None:
    network, x = small_first_stage().backbone, torch.rand(1, 3, 8, 8)
    before = count_macs(network, x)
    reparameterize(network)
    expected = network(x)
    assert count_macs(network, x) == before
    assert torch.equal(network(x), expected)
    assert not network.head[0].weight.is_leaf  # folded anew, with gradient


def test_muon_sees_matrices_of_each_group() -> None:
    conv = nn.Conv2d(16, 32, 3, groups=2)
    network = nn.Sequential(conv)
    reparameterize(network)
    counts = groups_of_convolutions(network)
    shapes = {k: matrix_shape(p, counts[p]) for k, p in conv.named_parameters() if p.ndim > 1}
    assert {name.rpartition(".")[2]: shape for name, shape in shapes.items()} == {
        "original": (2, 16, 72), "point": (2, 16, 8), "first": (2, 16, 8), "last": (2, 16, 144),
    }  # fmt: skip


@pytest.mark.parametrize("backbone", ["fsrcnn", "carn"])
def test_a_padded_twin_runs_folded_weights(backbone: str) -> None:
    torch.manual_seed(0)
    network = build_network(default_config(backbone, 2))
    reparameterize(network.backbone)
    start_from_identity(network.backbone)
    x = torch.rand(1, 3, 6, 6)
    expected = network(x, (12, 12)).mixed()
    found = PaddedTwin(network)(x, (12, 12)).mixed()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    found.square().mean().backward()
    assert all(p.grad is not None for p in network.backbone.parameters())


@pytest.mark.parametrize("fault", ["missing", "shape"])
def test_a_damaged_checkpoint_is_refused(fault: str, tmp_path: Path) -> None:
    network = small_first_stage()
    reparameterize(network.backbone)
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    assert is_reparameterized(state)
    hparams = {"network": network.config(), "stage": "1", "backbone": "fsrcnn", "num_classes": 1}
    content = {"hyper_parameters": hparams, "state_dict": state}
    file = tmp_path / "x.ckpt"
    torch.save(content, file)
    load_model_file(file)
    [first, *_] = [key for key in state if key.endswith(".0.first")]
    if fault == "missing":
        del state[first]
    else:
        state[first] = state[first].repeat(1, 2)
    torch.save(content, file)
    with pytest.raises(ModelFileError, match=r"x\.ckpt: weights and architecture do not fit"):
        load_model_file(file)

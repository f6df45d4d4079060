"""The padded twin against the network itself: outputs, gradients, running statistics."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import PCSR, CellQueries, PaddedTwin, build_network, default_config
from pcsr_lightning.networks.padded import padded

SIZES = {"whole": (48, 48), "fractional": (33, 47)}
# Of crops of different scales.
CELLS = CellQueries.draw(
    (12, 12), torch.tensor([[48, 48], [24, 30], [33, 47]]), 2, torch.Generator().manual_seed(0)
)
QUERIES = {"all": None, "some": torch.tensor([0, 5, 700, 5, 1300]), "of each LR pixel": CELLS}
BACKBONES = {
    "fsrcnn": {},
    "carn": {},
    "srresnet": {"blocks": 2},
    # An entry of more channels than a merge, groups of odd sizes, parts that fill no tile.
    "carn-odd": {"nf": 15, "group": 3},
    "fsrcnn-odd": {"d": 10, "s": 20, "m": 2},
}


def network(name: str, classes: int) -> PCSR:
    """In training mode; norms with statistics and weights that are not those of a fresh network."""
    torch.manual_seed(0)
    config = default_config(name.partition("-")[0], classes)
    model = build_network(config | {"backbone": config["backbone"] | BACKBONES[name]})
    assert isinstance(model, PCSR)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor, std=0.1)
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model.train()


def step(
    model: PCSR, run: PCSR | PaddedTwin, size: tuple[int, int], queries: Tensor | CellQueries | None
):
    """Output, gradients, and what the step has left in the buffers."""
    torch.manual_seed(1)
    lr = torch.rand(3, 3, 12, 12)
    out = run(lr, size, queries)
    sr = out.mixed()
    loss = (sr - torch.rand_like(sr)).abs().mean()
    if out.logits_BMQ is not None:
        loss = loss + out.logits_BMQ.softmax(1).sum(dim=(0, 2)).square().mean()
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    model.zero_grad()
    return sr.detach(), gradients, {n: b.clone() for n, b in model.named_buffers()}


def assert_same(one: dict[str, Tensor | None], two: dict[str, Tensor | None]) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        other = two[name]
        if tensor is None or other is None:
            assert tensor is other, name
            continue
        error = float((tensor - other).abs().max() / tensor.abs().max().clamp_min(1e-3))
        assert error < 1e-5, f"{name}: {error:.1e}"


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("queries", QUERIES)
@pytest.mark.parametrize("frozen", [False, True])
def test_the_twin_is_the_network(backbone: str, size: str, queries: str, frozen: bool) -> None:
    """As the first stage trains it, and as the second one does, with a frozen backbone."""
    found = []
    for padding in (False, True):
        model = network(backbone, 2 if frozen else 1).double()
        if frozen:
            for part in (model.backbone, model.upsampler(0)):
                part.requires_grad_(False).eval()
        run = PaddedTwin(model) if padding else model
        torch.set_default_dtype(torch.float64)
        try:
            wanted = QUERIES[queries]
            if isinstance(wanted, CellQueries):
                wanted = replace(wanted, offset_BhwN4=wanted.offset_BhwN4.double())
            found.append(step(model, run, SIZES[size], wanted))
        finally:
            torch.set_default_dtype(torch.float32)
    (sr, gradients, buffers), (wide_sr, wide_gradients, wide_buffers) = found
    assert float((sr - wide_sr).abs().max()) < 1e-9
    assert_same(gradients, wide_gradients)
    assert_same(buffers, wide_buffers)
    before = dict(network(backbone, 2 if frozen else 1).double().named_buffers())
    norms = [n for n in before if "running" in n]
    assert all(torch.equal(before[n], wide_buffers[n]) == frozen for n in norms)
    assert any(g is None for g in wide_gradients.values()) == frozen


def test_the_twin_in_single_precision() -> None:
    model = network("carn", 2)
    sr, gradients, _ = step(model, model, (48, 48), None)
    wide = network("carn", 2)
    wide_sr, wide_gradients, _ = step(wide, PaddedTwin(wide), (48, 48), None)
    assert float((sr - wide_sr).abs().max()) < 1e-5
    for name, gradient in gradients.items():
        other = wide_gradients[name]
        assert gradient is not None
        assert other is not None
        assert float((gradient - other).norm() / gradient.norm()) < 1e-4, name


def test_channels_are_whole_tiles() -> None:
    twin = PaddedTwin(network("carn", 2)).twin
    convolutions = [m for m in twin.modules() if isinstance(m, nn.Conv2d)]
    assert {m.groups for m in convolutions} == {1}
    assert {m.out_channels for m in convolutions} == {64}
    assert {m.in_channels for m in convolutions} == {3, 64, 128, 192, 256}
    linear = [m for m in twin.modules() if isinstance(m, nn.Linear)]
    assert {m.out_features % 8 for m in linear} == {0}
    assert (padded(1), padded(16), padded(17), padded(52, 64)) == (16, 16, 32, 64)


def test_the_network_stays_as_it_is() -> None:
    model = network("carn", 2)
    before = {n: t.shape for n, t in model.state_dict().items()}
    PaddedTwin(model)(torch.rand(1, 3, 12, 12), (24, 24))
    assert {n: t.shape for n, t in model.state_dict().items()} == before


def test_networks_without_a_twin() -> None:
    bsrn = build_network(default_config("bsrn"))
    assert isinstance(bsrn, PCSR)
    with pytest.raises(ConfigError, match=r"^backbone bsrn has no form with padded channels$"):
        PaddedTwin(bsrn)
    compiled = network("carn", 1)
    compiled.upsamplers[0] = torch.compile(compiled.upsamplers[0])  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="compile"):
        PaddedTwin(compiled)

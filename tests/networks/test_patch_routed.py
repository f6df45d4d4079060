"""ClassSR and ARM: sizes as published, and what a patch's sub-network makes of it."""

import numpy as np
import pytest
import torch
from tests.small import small_patch_routed

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import ARM, ClassSR, build_network, patch_routed_config
from pcsr_lightning.networks.arm import BINS, MAX_PSNR, edge_score
from pcsr_lightning.networks.patch_routed import at_width


@pytest.mark.parametrize(
    ("kind", "backbone", "thousands"),
    [
        ("classsr", "fsrcnn", 113),
        ("classsr", "carn", 645),
        ("classsr", "srresnet", 3062),
        ("arm", "fsrcnn", 25),
        ("arm", "carn", 295),
        ("arm", "srresnet", 1518),
    ],
)
def test_parameters_are_those_of_the_papers_table(kind: str, backbone: str, thousands: int) -> None:
    network = build_network(patch_routed_config(kind, backbone))
    assert round(sum(p.numel() for p in network.parameters()) / 1000) == thousands
    assert build_network(network.config()).config() == network.config()


def test_the_published_widths() -> None:
    assert patch_routed_config("classsr", "fsrcnn")["widths"] == [56, 36, 16]
    assert patch_routed_config("classsr", "carn")["widths"] == [64, 52, 36]


@pytest.mark.parametrize("widths", [(8,), (8, 8), (4, 8), (6, 4)])
def test_widths_fall_from_the_backbones_own(widths: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"widths=.*fall from 8"):
        small_patch_routed("classsr", widths=widths)


def test_the_classifier_by_hand() -> None:
    model = small_patch_routed("classsr")
    assert isinstance(model, ClassSR)
    assert [p.shape for p in model.classifier.parameters()][:1] == [(128, 3, 4, 4)]
    patches = torch.rand(2, 3, 32, 32)
    scores = model.scores(patches)
    assert scores.shape == (2, 3)
    # A patch is judged by the mean over its 4 x 4 cells: shifted by a cell it is the same.
    torch.testing.assert_close(model.scores(patches.roll(4, dims=3)), scores)
    for j, width in enumerate((8, 6, 4)):
        assert model.branch(j).backbone.args["d"] == width
        torch.testing.assert_close(model.run_class(j, patches), model.branch(j)(patches))


def small_arm(backbone: str = "fsrcnn") -> ARM:
    model = small_patch_routed("arm", backbone)
    assert isinstance(model, ARM)
    return model


@pytest.mark.parametrize("backbone", ["fsrcnn", "carn"])
def test_a_narrow_network_is_made_of_the_first_channels(backbone: str) -> None:
    model = small_arm(backbone)
    patches = torch.rand(2, 3, 32, 32)
    model.train()  # batch norm gets statistics of each width's own
    for j in range(3):
        model.run_class(j, patches)
    model.eval()
    for j, width in enumerate((8, 6, 4)):
        alone = at_width(model.widest, width).eval()
        state = alone.state_dict()
        for name, value in model.supernet.state_dict().items():
            state[name] = value[tuple(slice(n) for n in state[name].shape)]
        if j:
            own = model.statistics[j - 1].state_dict()
            assert len(own) == (0 if backbone == "fsrcnn" else 36)
            state |= {name.replace("-", "."): value for name, value in own.items()}
        alone.load_state_dict(state)
        with torch.no_grad():
            torch.testing.assert_close(model.run_class(j, patches), alone(patches))
    bicubic = torch.nn.functional.interpolate(patches, scale_factor=4, mode="bicubic")
    torch.testing.assert_close(model.run_class(3, patches), bicubic)


def test_a_narrow_network_trains_its_slices_alone() -> None:
    model = small_arm()
    model.run_class(2, torch.rand(1, 3, 8, 8)).sum().backward()
    gradient = model.supernet.backbone.head[0].weight.grad
    assert gradient is not None
    assert [bool(channel.any()) for channel in gradient] == [True] * 4 + [False] * 4


def test_what_it_learns_is_in_its_state_once() -> None:
    model = small_arm("carn")
    kept = {name for name, _ in model.named_parameters()}
    assert kept == {f"supernet.{name}" for name, _ in model.supernet.named_parameters()}
    model.train().run_class(1, torch.rand(1, 3, 8, 8))
    other = small_arm("carn")
    other.load_state_dict(model.state_dict())
    patches = torch.rand(1, 3, 8, 8)
    for j in range(4):
        torch.testing.assert_close(
            other.eval().run_class(j, patches), model.eval().run_class(j, patches)
        )


def test_edge_scores_against_a_loop_in_numpy() -> None:
    patches = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    patches[1] = 0.25
    expected = []
    for patch in patches.double().numpy():
        grey = np.round(np.einsum("c,chw", (0.299, 0.587, 0.114), np.round(patch * 255)))
        padded = np.pad(grey, 1, mode="reflect")
        total = 0.0
        for y in range(1, 7):
            for x in range(1, 8):
                around = padded[y - 1 : y + 2 : 2, x - 1 : x + 2 : 2].sum()
                total += min(abs(2 * around - 8 * padded[y, x]), 255)
        expected.append(total / 42)
    assert expected[1] == 0
    torch.testing.assert_close(edge_score(patches).tolist(), expected, atol=1e-3, rtol=0)


def test_the_table_by_hand() -> None:
    model = small_arm()
    edges = torch.tensor([10.0, 10.4, 12.2, 40.0])  # bins of 1: 0, 0, 2 and the last
    psnr = torch.tensor([[30.0, 29, 28, 20], [32, 31, 26, 20], [35, 33, 30, 25], [21, 20, 19, 18]])
    psnr[2, 0] = torch.inf
    model.fill_table(edges, psnr)
    torch.testing.assert_close(model.edges[[0, 2, BINS - 1]], torch.tensor([10.5, 12.5, 39.5]))
    table = model.psnr_KM
    assert table[0].tolist() == [31, 30, 27, 20]
    assert table[2].tolist() == [MAX_PSNR, 33, 30, 25]
    assert table[1].tolist() == [(31 + MAX_PSNR) / 2, 31.5, 28.5, 22.5]  # on the line between
    assert table[-1].tolist() == [21, 20, 19, 18]
    torch.testing.assert_close(table[15], torch.lerp(table[2], table[-1], 13 / 27))


def test_a_score_takes_the_nearest_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_arm()
    model.fill_table(torch.arange(31.0), torch.arange(31.0)[:, None].expand(-1, 4))
    monkeypatch.setattr(
        "pcsr_lightning.networks.arm.edge_score", lambda _: torch.tensor([-3, 4.4, 99])
    )
    assert model.scores(torch.empty(3, 3, 1, 1))[:, 0].tolist() == [0, 4, 29.5]

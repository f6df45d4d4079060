"""The query grid against LIIF's definition, and the hoisted form against the plain one."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import (
    PCSR,
    PixelMLP,
    QueryGrid,
    bilinear_upsample,
    build_network,
    default_config,
    plain_inputs,
)

SIZES = [(20, 24), (25, 30), (37, 48), (23, 31), (10, 12)]  # x2, x2.5, x3.7 by x4, odd, x1


@given(n=st.integers(1, 40), factor=st.fractions(1, 8, max_denominator=7))
@settings(max_examples=60, deadline=None)
def test_nearest_and_offset_in_exact_arithmetic(n: int, factor: Fraction) -> None:
    n_hr = max(n, round(n * factor))
    grid = QueryGrid.make((n, n), (n_hr, n_hr), dtype=torch.float64)
    for i in range(n_hr):
        centre = (Fraction(i) + Fraction(1, 2)) * n / n_hr
        nearest = int(centre)  # the LR pixel that the centre falls in; the later one on a border
        offset = 2 * (centre - nearest - Fraction(1, 2))
        assert int(grid.rows_H[i]) == nearest
        assert float(grid.dy_H[i]) == pytest.approx(float(offset), abs=1e-12)
        assert abs(offset) <= 1


def test_grid_agrees_with_nearest_sampling_of_torch() -> None:
    """Independent: LIIF asks ``grid_sample(mode="nearest")``; no ties at these sizes."""
    h, w, H, W = 7, 9, 23, 31
    lr = torch.rand(1, 1, h, w)
    y = (torch.arange(H) + 0.5) / H * 2 - 1
    x = (torch.arange(W) + 0.5) / W * 2 - 1
    where = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]
    asked = F.grid_sample(lr, where, mode="nearest", align_corners=False)
    grid = QueryGrid.make((h, w), (H, W))
    assert torch.equal(lr[:, :, grid.rows_H][:, :, :, grid.cols_W], asked)


@pytest.mark.parametrize("size", [(4, 20), (0, 5), (20, 3)])
def test_a_grid_that_shrinks_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="shrink"):
        QueryGrid.make((5, 5), size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("hidden", [(), (7,), (11, 6, 5)])
def test_hoisted_equals_plain(size: tuple[int, int], hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    mlp = PixelMLP(13, hidden, 3).double()
    feat = torch.randn(2, 13, 10, 12, dtype=torch.float64)
    grid = QueryGrid.make((10, 12), size, dtype=torch.float64)
    plain = mlp(plain_inputs(feat, grid)).transpose(1, 2).reshape(2, 3, *size)
    hoisted = mlp.query(feat, grid)
    assert (hoisted - plain).abs().max() < 1e-12
    some = torch.randint(0, size[0] * size[1], (50,))
    assert (mlp.query(feat, grid, some) - plain.flatten(2)[:, :, some]).abs().max() < 1e-12


@pytest.mark.parametrize("size", SIZES[:3])
def test_hoisted_has_the_gradients_of_plain(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    mlp = PixelMLP(5, (8, 6), 3).double()
    feat = torch.randn(1, 5, 10, 12, dtype=torch.float64, requires_grad=True)
    grid = QueryGrid.make((10, 12), size, dtype=torch.float64)
    weigh = torch.randn(1, 3, *size, dtype=torch.float64)
    inputs = [feat, *mlp.parameters()]
    plain = mlp(plain_inputs(feat, grid)).transpose(1, 2).reshape(1, 3, *size)
    expected = torch.autograd.grad((plain * weigh).sum(), inputs)
    found = torch.autograd.grad((mlp.query(feat, grid) * weigh).sum(), inputs)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() < 1e-10


@pytest.mark.parametrize("backbone", ["fsrcnn", "carn", "srresnet", "bsrn"])
def test_one_model_serves_every_scale(backbone: str) -> None:
    torch.manual_seed(0)
    model = build_network(default_config(backbone, num_classes=3)).eval()
    assert isinstance(model, PCSR)
    lr = torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        for size in ((40, 40), (50, 50), (80, 74)):
            out = model(lr, size)
            assert [r.shape for r in out.residual_MB3Q] == [(1, 3, size[0] * size[1])] * 3
            assert out.logits_BMQ.shape == (1, 3, size[0] * size[1])
            feat, grid = model.features(lr), model.grid((20, 20), size)
            prob = model.logits(feat, grid).softmax(1)
            mixed = bilinear_upsample(lr, size) + sum(
                prob[:, j, None] * model.residual(feat, grid, j) for j in range(3)
            )
            assert (out.mixed().unflatten(2, size) - mixed).abs().max() < 1e-5


def test_bsrn_takes_pictures_smaller_than_its_pooling() -> None:
    net = build_network(default_config("bsrn")).backbone.eval()
    assert net.halo is None
    for h, w in ((1, 1), (1, 30), (5, 3), (14, 15)):
        assert net(torch.rand(1, 3, h, w)).shape[-2:] == (h, w)

"""However a picture is cut into strips, the result is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pcsr_lightning.inference import UpscaleResult, upscale
from pcsr_lightning.inference.features import STRIP_PIXELS, TiledRows, feature_rows
from pcsr_lightning.networks import PCSR, Backbone, Original, PixelMLP, build_network

pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")
MakeNetwork = Callable[..., PCSR]
BRIEF = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

ROUTINGS: list[dict[str, Any]] = [
    {}, {"k": 0.7}, {"k": -2.0}, {"adaptive": True}, {"budget": 0.6}, {"budget": 0.9},
    {"fixed_class": 0}, {"fixed_class": 1}, {"k": 0.2, "cost": "proportional"},
]  # fmt: skip
SCALES = st.one_of(
    st.sampled_from([1, 2, 3, 4, (2, 3), (1, 4), (3, 2.5), (1.5, 2)]),
    st.floats(1, 5),
    st.tuples(st.floats(1, 5), st.floats(1, 5)),
)


@pytest.fixture(scope="module")
def network(make_network: MakeNetwork) -> Callable[..., PCSR]:
    """Each network once."""
    known: dict[tuple[str, int], PCSR] = {}

    def get(backbone: str = "fsrcnn", num_classes: int = 2) -> PCSR:
        key = (backbone, num_classes)
        if key not in known:
            known[key] = make_network(*key)
        return known[key]

    return get


def assert_same(found: UpscaleResult, expected: UpscaleResult) -> None:
    """To 1e-5, and in every single class: these draws hold no tie that rounding could break."""
    assert torch.equal(found.assignment, expected.assignment)
    error = float((found.image - expected.image).abs().max())
    assert error <= 1e-5
    assert found.shares == pytest.approx(expected.shares)


@settings(max_examples=40, deadline=None, suppress_health_check=BRIEF)
@given(
    h=st.integers(1, 24),
    w=st.integers(1, 16),
    scale=SCALES,
    tile_rows=st.integers(1, 25),
    routing=st.sampled_from(ROUTINGS),
    backbone=st.sampled_from(["fsrcnn", "fsrcnn", "carn", "srresnet", "bsrn"]),
    num_classes=st.sampled_from([2, 3]),
    refine=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_strips_equal_the_whole(
    network: Callable[..., PCSR],
    h: int,
    w: int,
    scale: Any,
    tile_rows: int,
    routing: dict[str, Any],
    backbone: str,
    num_classes: int,
    refine: bool,
    seed: int,
) -> None:
    model = network(backbone, num_classes)
    lr = torch.rand(1, 3, h, w, generator=torch.Generator().manual_seed(seed))
    options = {"scale": scale, "refine": refine, **routing}
    whole = upscale(model, lr, tile_rows=h, **options)
    assert_same(upscale(model, lr, tile_rows=tile_rows, **options), whole)


@pytest.mark.parametrize("routing", [{}, {"adaptive": True}, {"budget": 0.6}], ids=str)
@pytest.mark.parametrize("backbone", ["fsrcnn", "carn", "bsrn"])
def test_any_memory_gives_the_same(
    network: Callable[..., PCSR], backbone: str, routing: dict[str, Any]
) -> None:
    lr, model = torch.rand(1, 3, 26, 20), network(backbone)
    for scale in (3, 2.3) if backbone == "fsrcnn" else (2.3,):
        whole = upscale(model, lr, scale, tile_rows=26, **routing)
        # From a single row at a time, with nothing kept between two passes, to all of them.
        for max_memory in (1, 2_000_000, 8_000_000, 2**40):
            found = upscale(model, lr, scale, max_memory=max_memory, **routing)
            assert_same(found, whole)


@pytest.mark.parametrize("routing", [{}, {"adaptive": True}, {"budget": 0.6}], ids=str)
def test_a_batch_of_large_pictures_equals_singles(
    network: Callable[..., PCSR], routing: dict[str, Any]
) -> None:
    w = 98
    h = STRIP_PIXELS // w + 2
    # Not equally difficult, so that shared statistics would show.
    lr = torch.rand(3, 3, h, w) * torch.tensor([1.0, 0.3, 0.7])[:, None, None, None]
    model = network()
    together = upscale(model, lr, 1.5, **routing)
    singles = [upscale(model, one[None], 1.5, tile_rows=h, **routing) for one in lr]
    assert torch.equal(together.assignment, torch.cat([s.assignment for s in singles]))
    assert (together.image - torch.cat([s.image for s in singles])).abs().max() <= 1e-5
    mean = torch.tensor([s.shares for s in singles]).mean(dim=0).tolist()
    assert together.shares == pytest.approx(mean)


# Networks that cannot be streamed


class Wilful(Backbone):
    """Convolutions behind a question that no trace can answer."""

    name = "wilful"

    def __init__(self, halo: int | None) -> None:
        super().__init__()
        self.args, self.out_channels, self.halo = {}, 8, halo
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
        )

    def forward(self, lr_B3hw: Tensor) -> Tensor:
        if lr_B3hw.shape[2] > 10**6:
            raise ValueError("too large")
        feat_BDhw: Tensor = self.body(lr_B3hw)
        return feat_BDhw

    def make_tail(self, scale: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(8, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))


@pytest.mark.parametrize("halo", [3, 4, None])
@settings(max_examples=15, deadline=None, suppress_health_check=BRIEF)
@given(
    h=st.integers(1, 30), rows=st.integers(1, 12), start=st.floats(0, 1), batch=st.integers(1, 2)
)
def test_overlapping_tiles(halo: int | None, h: int, rows: int, start: float, batch: int) -> None:
    torch.manual_seed(0)
    module, x = Wilful(halo).eval(), torch.rand(batch, 3, h, 6)
    first = at = round(start * (h - 1))
    with torch.inference_mode():
        source = feature_rows(module, halo, x, torch.float32)
        assert isinstance(source, TiledRows)
        parts = []
        for top, feat_BrwD in source.strips(rows, first):
            assert top == at
            assert 0 < feat_BrwD.shape[1] <= rows
            at += feat_BrwD.shape[1]
            parts.append(feat_BrwD)
        whole = module(x).permute(0, 2, 3, 1)
    assert (torch.cat(parts, dim=1) - whole[:, first:]).abs().max() <= 1e-5


@pytest.mark.parametrize("scale", [3, 2.5])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_network_that_cannot_be_streamed(batch: int, scale: float) -> None:
    torch.manual_seed(1)
    mlps = [PixelMLP(8, hidden, 3) for hidden in [(12, 12), (4,)]]
    model = PCSR(Wilful(3), mlps, PixelMLP(8, (6,), 2)).eval()
    lr = torch.rand(batch, 3, 25, 9)
    for routing in ROUTINGS:
        whole = upscale(model, lr, scale, tile_rows=25, **routing)
        for tile_rows in (1, 4, 11):
            assert_same(upscale(model, lr, scale, tile_rows=tile_rows, **routing), whole)


# Original models


def original(backbone: str, scale: int = 4) -> Original:
    sizes = {
        "fsrcnn": {"d": 16, "s": 6, "m": 2},
        "carn": {"nf": 16, "group": 4},
        "srresnet": {"nf": 12, "blocks": 2},
        "bsrn": {"nf": 16, "blocks": 2},
        "compact": {"nf": 8, "blocks": 2},
        "wilful": {},
    }
    torch.manual_seed(0)
    if backbone == "wilful":
        return Original(Wilful(3), scale, (0.4, 0.4, 0.4)).eval()
    args = {"name": backbone, **sizes[backbone]}
    model = build_network(
        {"kind": "original", "backbone": args, "scale": scale, "mean": [0.4, 0.3, 0.5]}
    )
    assert isinstance(model, Original)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.uniform_(-0.1, 0.1)
    return model.eval()


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("backbone", ["fsrcnn", "carn", "srresnet", "bsrn", "compact", "wilful"])
def test_original_models(backbone: str, scale: int) -> None:
    model = original(backbone, scale)
    for batch, h, w in ((1, 23, 9), (2, 12, 15), (1, 1, 1)):
        lr = torch.rand(batch, 3, h, w)
        with torch.no_grad():
            plain = model(lr).clamp(0, 1)
        for tile_rows in (None, 1, 3, 10, h):
            found = upscale(model, lr, scale, tile_rows=tile_rows)
            assert (found.image - plain).abs().max() <= 1e-5
            assert found.assignment.shape == (batch, h * scale, w * scale)


# Whole numbers


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("scale", [4, 2.5])
def test_whole_numbers_are_the_rounded_result(
    network: Callable[..., PCSR], bits: int, scale: float
) -> None:
    # Some of it leaves [0, 1].
    lr = (torch.rand(2, 3, 14, 11) * 1.4 - 0.2).contiguous()
    models = [network()] + ([original("carn")] if scale == 4 else [])
    for model in models:
        exact = upscale(model, lr, scale, tile_rows=4)
        found = upscale(model, lr, scale, tile_rows=4, bits=bits)
        assert found.image.dtype == (torch.uint8 if bits == 8 else torch.uint16)
        expected = (exact.image * (2**bits - 1)).round()
        assert torch.equal(found.image.float(), expected)
        if isinstance(model, PCSR):
            assert exact.image.min() == 0, "nothing was cut off"
        assert torch.equal(found.assignment, exact.assignment)

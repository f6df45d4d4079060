"""What cannot be enlarged is refused in words; what can be is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference import output_size, upscale
from pcsr_lightning.networks import PCSR, Original, build_network, default_config

MakeNetwork = Callable[..., PCSR]


@pytest.mark.parametrize(
    ("lr_size", "scale", "size"),
    [
        ((48, 40), 2.5, (120, 100)),
        ((33, 43), 2.5, (82, 108)),
        ((3, 5), (3.7, 4), (11, 20)),
        ((3, 5), [1, 16], (3, 80)),
        ((1, 1), 1, (1, 1)),
        ((7, 1), 1.04, (7, 1)),
    ],
)
def test_output_size(lr_size: tuple[int, int], scale: Any, size: tuple[int, int]) -> None:
    assert output_size(lr_size, scale) == size


@pytest.mark.parametrize(
    "scale",
    [
        *(0, -1, 0.99, 16.1, 1e9, math.nan, math.inf, True, "4", None),
        *((), (2,), (2, 2, 2), (2, 0.5), (2, math.nan), (2, "2")),
    ],
    ids=str,
)
def test_refused_scales(scale: Any) -> None:
    with pytest.raises(ConfigError, match="scale must"):
        output_size((8, 8), scale)


@pytest.mark.parametrize(
    "size", [(7, 8), (8, 129), (8,), (8, 8, 8), (8.5, 9), "ab", (True, 9)], ids=str
)
def test_refused_sizes(make_network: MakeNetwork, size: Any) -> None:
    with pytest.raises(ConfigError, match=r"size must|cannot make"):
        upscale(make_network(), torch.rand(1, 3, 8, 8), size=size)


def test_size_instead_of_scale(make_network: MakeNetwork) -> None:
    lr = torch.rand(1, 3, 8, 6)
    asked = upscale(make_network(), lr, size=(21, 17))
    assert asked.image.shape == (1, 3, 21, 17)
    same = upscale(make_network(), lr, scale=(21 / 8, 17 / 6))
    assert torch.equal(asked.image, same.image)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (torch.rand(3, 8, 8), r"add \[None\]"),
        (torch.rand(8, 8), r"\(B, 3, h, w\)"),
        (torch.rand(1, 4, 8, 8), "channels R, G, B"),
        (torch.rand(1, 8, 8, 3), "channels R, G, B"),
        (torch.rand(1, 3, 0, 8), "empty"),
        (torch.rand(0, 3, 8, 8), "empty"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"float\(\) / 255"),
        (torch.rand(1, 3, 8, 8) * 255, r"\[0, 1\]"),
        (torch.rand(1, 3, 8, 8) * 2 - 1, r"\[0, 1\]"),
        (torch.rand(1, 3, 8, 8).index_fill(2, torch.tensor(1), math.nan), "24 values that are NaN"),
        (torch.rand(1, 3, 8, 8).index_fill(3, torch.tensor(1), math.inf), "24 values that are NaN"),
        (torch.rand(1, 3, 8, 8, device="meta"), "on meta and the model on cpu"),
        ([[0.5]], "torch tensor"),
    ],
)
def test_refused_pictures(make_network: MakeNetwork, picture: Any, said: str) -> None:
    original = build_network(default_config("fsrcnn", original=True))
    for model in (make_network(), original):
        with pytest.raises(ConfigError, match=said):
            upscale(model, picture)


def test_overshoot_of_a_resampled_picture_is_taken(make_network: MakeNetwork) -> None:
    lr = torch.full((1, 3, 8, 8), 1.2)
    lr[:, :, ::2] = -0.2
    image = upscale(make_network(), lr).image
    assert image.min() >= 0
    assert image.max() <= 1


def test_half_precision_pictures_are_taken(make_network: MakeNetwork) -> None:
    lr = torch.rand(1, 3, 5, 5)
    exact = upscale(make_network(), lr, fixed_class=0).image
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert (
            upscale(make_network(), lr.to(dtype), fixed_class=0).image - exact
        ).abs().max() < 0.02


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": math.nan}, "finite"),
        ({"cost": "cheap"}, "softmax or proportional"),
        ({"refine": "no"}, "true, false, or None"),
        ({"budget": 0.5, "adaptive": True}, "exclude"),
    ],
)
def test_refused_options(make_network: MakeNetwork, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        upscale(make_network(), torch.rand(1, 3, 4, 4), **options)


def test_refused_model() -> None:
    with pytest.raises(ConfigError, match=r"not Linear.*pcsr_lightning\.load"):
        upscale(nn.Linear(1, 1), torch.rand(1, 3, 4, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("backbone", ["fsrcnn", "carn", "srresnet"])
def test_original_model(backbone: str, scale: int) -> None:
    torch.manual_seed(0)
    config = default_config(backbone, original=True) | {"scale": scale}
    model = build_network(config)
    assert isinstance(model, Original)
    lr = torch.rand(2, 3, 6, 7)
    with torch.no_grad():
        expected = model.eval()(lr).clamp(0, 1)
    result = upscale(model.train(), lr, scale=scale)
    assert model.training
    assert all(part.training for part in model.modules())
    torch.testing.assert_close(result.image, expected, atol=1e-5, rtol=0)
    assert result.image.shape == (2, 3, 6 * scale, 7 * scale)
    assert result.shares == (1.0,)
    assert not result.assignment.any()
    with pytest.raises(ConfigError, match=rf"made for scale {scale} only"):
        upscale(model, lr, scale=3)
    with pytest.raises(ConfigError, match="class 0 only"):
        upscale(model, lr, scale=scale, fixed_class=1)


@pytest.mark.parametrize(
    ("backbone", "real", "published"),
    [
        # PReLU's half multiply-add per element, and batch norm's one, are the second terms.
        ("fsrcnn", 24_336 + 68, 228_456 + 68),
        ("carn", 563_904 + 768, 563_904 + 768),
        ("srresnet", 2_536_128, 2_536_128),
    ],
)
def test_cost_of_the_originals(backbone: str, real: int, published: int) -> None:
    """Multiply-adds per LR pixel at x4, worked out from the papers' layer sizes."""
    model = build_network(default_config(backbone, original=True))
    flops = upscale(model, torch.rand(1, 3, 10, 10)).flops
    assert flops.gmacs * 1e7 == pytest.approx(real, rel=1e-6)
    assert flops.gflops_published / 2 * 1e7 == pytest.approx(published, rel=1e-6)


def test_cost_of_pcsr(make_network: MakeNetwork) -> None:
    """CARN's published figures per LR pixel and per query pixel; hoisting taken off by hand."""
    model = make_network("carn", 2)
    lr = torch.rand(1, 3, 10, 10)
    backbone = 232_596 + 624
    heavy, light, classifier = 20_794, 1_980, 680
    result = upscale(model, lr, k=0.0)
    share, rest = result.shares
    assert 0 < share < 1
    published = backbone + 16 * (classifier + share * heavy + rest * light)
    assert result.flops.gflops_published / 2 * 1e7 == pytest.approx(published, rel=1e-3)
    # 56 inputs a query before; now 52 once per LR pixel.
    saved = 16 * 56 * (10 + share * 74 + rest * 20) - 52 * (10 + 74 + 20)
    assert result.flops.gmacs * 1e7 == pytest.approx(published - saved, rel=1e-3)
    single = upscale(model, lr, fixed_class=1).flops
    assert single.gflops_published / 2 * 1e7 == pytest.approx(backbone + 16 * light, rel=1e-3)

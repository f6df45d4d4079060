"""Less precise arithmetic costs hundredths of a dB at most, and wrong choices are named."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import ConfigError, PCSRError
from pcsr_lightning.images import bicubic, read_rgb8
from pcsr_lightning.inference import Execution, linear, upscale
from pcsr_lightning.inference.execution import has_bf16
from pcsr_lightning.inference.kernels import QueryKernels, Strip
from pcsr_lightning.networks import PCSR, Original, QueryGrid, build_network

MakeNetwork = Callable[..., PCSR]
PRECISIONS = [
    "fp32",
    pytest.param(
        "bf16",
        marks=pytest.mark.skipif(
            not has_bf16("cpu"), reason="this processor does not multiply bfloat16 numbers"
        ),
    ),
]
needs_bf16 = pytest.mark.skipif(
    not has_bf16("cpu"), reason="this processor does not multiply bfloat16 numbers"
)


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(float((a - b).double().square().mean()))


@needs_bf16
@pytest.mark.parametrize("picture", ["chelsea.png", "coffee.png"])
@pytest.mark.parametrize(
    ("name", "scale"),
    [("fsrcnn-pcsr-x4", 4), ("carn-pcsr-multi", 2.5)],  # scales that the model was trained for
)
def test_bf16_on_a_photograph(picture: str, name: str, scale: float) -> None:
    model = pcsr_lightning.load(name)
    hr = read_rgb8(SAMPLE_FOLDER / "valid" / picture)[None, :, :200, :240] / 255
    lr = bicubic(hr, (round(200 / scale), round(240 / scale))).clamp(0, 1)
    for options in ({}, {"adaptive": True}, {"budget": 0.6}, {"fixed_class": 0}):
        exact = upscale(model, lr, scale, size=(200, 240), **options)
        fast = upscale(model, lr, scale, size=(200, 240), precision="bf16", **options)
        assert fast.image.dtype == torch.float32
        # Rounding to 8 bits of mantissa is seen, so that it is known to be at work, but small.
        assert float((fast.image - exact.image).abs().max()) > 1e-5
        assert abs(psnr(fast.image, hr) - psnr(exact.image, hr)) < 0.02
        assert float((fast.assignment != exact.assignment).float().mean()) < 0.02


@needs_bf16
@pytest.mark.parametrize("backbone", ["carn", "bsrn"])
def test_bf16_in_strips(make_network: MakeNetwork, backbone: str) -> None:
    model, lr = make_network(backbone), torch.rand(1, 3, 26, 11)
    exact = upscale(model, lr, fixed_class=0)
    for tile_rows in (3, 26):
        fast = upscale(model, lr, fixed_class=0, precision="bf16", tile_rows=tile_rows)
        assert psnr(fast.image, exact.image) > 45


@pytest.mark.parametrize("size", [(28, 36), (25, 31)])
def test_in_bf16_the_classifier_is_float32(
    make_network: MakeNetwork, size: tuple[int, int]
) -> None:
    model, grid = make_network("fsrcnn", 2), QueryGrid.make((7, 9), size)
    feat_1hwD = torch.rand(1, 7, 9, model.backbone.out_channels).bfloat16()
    strip = Strip(0, 7, 0, size[0])
    with torch.inference_mode():
        exact = QueryKernels.of(model, grid, torch.float32).logits(feat_1hwD.float(), strip)
        found = QueryKernels.of(model, grid, torch.bfloat16).logits(feat_1hwD, strip)
    assert torch.equal(found, exact)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("backbone", "the backbone's features: .* NaN or infinite"),
        ("classifier", "the weights of the classifier: .* NaN or infinite"),
        ("upsamplers", "the weights of upsampler 0: .* NaN or infinite"),
    ],
)
def test_damaged_weights(
    make_network: MakeNetwork, part: str, said: str, precision: str, value: float
) -> None:
    model = make_network(seed=5)
    with torch.no_grad():
        next(iter(getattr(model, part).parameters())).view(-1)[0] = value
    for scale in (4, 2.3):
        with pytest.raises(PCSRError, match=said):
            upscale(model, torch.rand(1, 3, 7, 6), scale, precision=precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_damaged_weights_of_an_original(precision: str) -> None:
    args = {"name": "carn", "nf": 8, "group": 4}
    model = build_network({"kind": "original", "backbone": args, "scale": 2, "mean": [0, 0, 0]})
    assert isinstance(model, Original)
    with torch.no_grad():
        model.backbone.entry.weight[0] = float("nan")
    with pytest.raises(PCSRError, match=r"the upscaled picture: .* NaN or infinite"):
        upscale(model.eval(), torch.rand(1, 3, 7, 6), 2, precision=precision)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "fp8"}, r"precision must be fp32, tf32 or bf16, not 'fp8'"),
        ({"precision": None}, r"precision must be fp32, tf32 or bf16, not None"),
        ({"tile_rows": 0}, r"tile_rows must be a whole number of at least 1, not 0"),
        ({"tile_rows": 2.5}, r"tile_rows must be a whole number of at least 1, not 2\.5"),
        ({"tile_rows": True}, r"tile_rows must be a whole number"),
        ({"tile_rows": "all"}, r"tile_rows must be a whole number of at least 1, not 'all'"),
        ({"max_memory": -1}, r"max_memory must be a whole number of at least 1, not -1"),
        ({"max_memory": float("nan")}, r"max_memory must be a whole number"),
        ({"max_memory": float("inf")}, r"max_memory must be a whole number"),
        ({"max_memory": 10, "tile_rows": 2}, r"max_memory and tile_rows exclude each other"),
        ({"bits": 12}, r"bits must be 8 or 16"),
    ],
    ids=str,
)
def test_choices_that_are_none(
    make_network: MakeNetwork, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        upscale(make_network(), torch.rand(1, 3, 4, 4), **options)


def test_numbers_as_other_programs_write_them(make_network: MakeNetwork) -> None:
    """Whole numbers that come as floats are whole numbers."""
    assert Execution(max_memory=2e9) == Execution(max_memory=2_000_000_000)  # type: ignore[arg-type]
    lr = torch.rand(1, 3, 9, 4)
    found = upscale(make_network(), lr, tile_rows=3.0)  # type: ignore[arg-type]
    assert torch.equal(found.image, upscale(make_network(), lr, tile_rows=3).image)


def test_bf16_where_there_is_none(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcsr_lightning.inference.execution.has_bf16", lambda _: False)
    with pytest.raises(ConfigError, match=r"precision=bf16: this cpu .* leave precision out"):
        upscale(make_network(), torch.rand(1, 3, 4, 4), precision="bf16")


@pytest.mark.parametrize("limit", ["avx2", "AVX512_CORE_VNNI"])
def test_a_limited_onednn_has_no_bf16(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert not has_bf16.__wrapped__("cpu")


@needs_bf16
def test_a_limit_that_leaves_bf16_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert has_bf16.__wrapped__("cpu")


# A model in another precision


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("backbone", ["fsrcnn", "bsrn"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_model_keeps_its_own_arithmetic(
    make_network: MakeNetwork, dtype: torch.dtype, backbone: str, batch: int
) -> None:
    single = make_network(backbone)
    model, lr = copy.deepcopy(single).to(dtype), torch.rand(batch, 3, 17, 8)
    for scale in (3, 2.5):
        found = upscale(model, lr, scale, fixed_class=0, tile_rows=6)
        assert found.image.dtype == torch.float32
        difference = float(
            (found.image - upscale(single, lr, scale, fixed_class=0).image).abs().max()
        )
        if dtype == torch.float64:
            assert difference < 1e-5
            with torch.no_grad():
                exact = copy.deepcopy(single).double()(lr.double(), found.image.shape[-2:])
            plain = (exact.base_B3Q + exact.residual_MB3Q[0]).clamp(0, 1).view_as(found.image)
            # Nearer to the truth than float32 arithmetic can be: 1e-7 is what the picture holds.
            assert float((found.image - plain).abs().max()) < 2.5e-7
        else:
            assert 1e-4 < difference < 0.05


def test_an_original_in_double(make_network: MakeNetwork) -> None:
    for backbone in ({"name": "carn", "nf": 8, "group": 4}, {"name": "bsrn", "nf": 8, "blocks": 1}):
        torch.manual_seed(0)
        config = {"kind": "original", "backbone": backbone, "scale": 2, "mean": [0.4, 0.4, 0.4]}
        model, lr = build_network(config).eval(), torch.rand(2, 3, 17, 8)
        assert isinstance(model, Original)
        with torch.no_grad():
            plain = model(lr).clamp(0, 1)
        assert (upscale(model.double(), lr, 2).image - plain).abs().max() < 1e-5


# The fused layer


@pytest.fixture
def untried() -> Iterator[None]:
    """What is known of the fused operator is forgotten, before and after."""
    linear._works.cache_clear()
    yield
    linear._works.cache_clear()


def _raises(*args: object) -> Tensor:
    raise RuntimeError("not on this build")


@pytest.mark.parametrize(
    "mkldnn",
    [
        SimpleNamespace(),
        SimpleNamespace(_linear_pointwise=_raises),
        SimpleNamespace(_linear_pointwise=lambda x, weight, *rest: x @ weight.T),
    ],
    ids=["missing", "broken", "wrong"],
)
@pytest.mark.usefixtures("untried")
def test_without_the_fused_layer(
    make_network: MakeNetwork,
    monkeypatch: pytest.MonkeyPatch,
    mkldnn: SimpleNamespace,
    recwarn: pytest.WarningsRecorder,
) -> None:
    model, lr = make_network(), torch.rand(1, 3, 12, 9)
    expected = upscale(model, lr, 2.5)
    linear._works.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", mkldnn)
    found = upscale(model, lr, 2.5)
    assert torch.equal(found.assignment, expected.assignment)
    assert (found.image - expected.image).abs().max() < 1e-6
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_fused_layer_is_a_linear_layer_and_its_relu(dtype: torch.dtype) -> None:
    for k, c, n in ((1, 1, 1), (7, 58, 58), (513, 20, 3)):
        x, weight, bias = torch.randn(k, c), torch.randn(n, c), torch.randn(n)
        with torch.inference_mode():
            found = linear.linear_relu(x.to(dtype), weight.to(dtype), bias.to(dtype))
        plain = (x @ weight.T + bias).relu()
        assert found.dtype == dtype
        error = float((found.float() - plain).abs().max()) / float(plain.abs().max() + 1)
        assert error < (0.03 if dtype == torch.bfloat16 else 1e-5)

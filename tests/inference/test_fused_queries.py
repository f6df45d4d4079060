"""The Triton kernels give what the plain way gives; on a CPU they run in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import torch
from tests.small import SMALL_BACKBONES
from torch import Tensor

from pcsr_lightning.errors import PCSRError
from pcsr_lightning.inference import (
    Execution,
    RoutingConfig,
    Session,
    UpscaleResult,
    fused_queries,
    upscale_by,
    upscale_rows,
)
from pcsr_lightning.inference.fused_queries import FusedKernels, query_kernels, split_width
from pcsr_lightning.inference.kernels import IntegerScale
from pcsr_lightning.networks import PCSR, build_network, default_config

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PLAIN, FUSED = Execution(fused=False), Execution(fused=True)
ROUTINGS = [
    RoutingConfig(k=0.3),
    RoutingConfig(adaptive=True),
    RoutingConfig(budget=0.75),
    RoutingConfig(fixed_class=1),
]


@pytest.fixture(autouse=True)
def large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the interpreter a program takes as long with many pixels as with few."""
    if DEVICE == "cpu":
        monkeypatch.setitem(fused_queries.TILE, torch.float32, (16, 64))


@cache
def network(backbone: str = "carn", num_classes: int = 2) -> PCSR:
    """MLPs of the published widths on a small backbone, using all their classes."""
    torch.manual_seed(num_classes)
    small = {"backbone": SMALL_BACKBONES[backbone]}
    model = build_network(default_config(backbone, num_classes) | small)
    assert isinstance(model, PCSR)
    assert model.classifier is not None
    with torch.no_grad():
        for layer in model.classifier.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.mul_(4)
        feat_BDhw = model.eval().features(picture())
        logits = model.logits(feat_BDhw, model.grid((9, 13), (36, 52)))
        last = model.classifier.tail[-1] if len(model.classifier.tail) else model.classifier.project
        assert isinstance(last, torch.nn.Linear)
        last.bias.sub_(logits.mean(dim=(0, 2, 3)))
    return model.to(DEVICE)


def picture(batch: int = 1, h: int = 9, w: int = 13) -> Tensor:
    return torch.rand(batch, 3, h, w, generator=torch.Generator().manual_seed(3))


def assert_same(found: UpscaleResult, expected: UpscaleResult, tolerance: float = 2e-6) -> None:
    same_BHW = found.assignment == expected.assignment
    assert float(same_BHW.float().mean()) > 0.995
    difference = (found.image.float() - expected.image.float()).abs().amax(dim=1)
    # A pixel of another class changes its neighbours too, where seams are smoothed.
    assert float((difference <= tolerance).float().mean()) > 0.98
    assert found.image.dtype == expected.image.dtype
    if bool(same_BHW.all()):
        assert float(difference.max()) <= tolerance
        assert found.flops == expected.flops
        assert found.shares == expected.shares


@pytest.mark.parametrize("routing", ROUTINGS, ids=lambda r: r.description)
@pytest.mark.parametrize("scale", [4, 2.3], ids=str)
@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("backbone", ["carn", "fsrcnn"])
def test_every_routing(
    backbone: str,
    num_classes: int,
    scale: float,
    routing: RoutingConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, lr = network(backbone, num_classes), picture().to(DEVICE)
    expected = upscale_by(model, lr, routing, PLAIN, scale)
    found = upscale_by(model, lr, routing, FUSED, scale)
    assert_same(found, expected)
    if routing.fixed_class is None:
        assert len(set(expected.assignment.flatten().tolist())) > 1
    assert not caplog.records


@pytest.mark.parametrize(
    ("scale", "h", "w"), [(1, 4, 7), (3, 5, 7), ((3.7, 2), 7, 11), (2, 1, 1)], ids=str
)
@pytest.mark.parametrize(("bits", "refine"), [(None, False), (8, True), (16, False)])
def test_sizes_and_integers(scale: Any, h: int, w: int, bits: int | None, refine: bool) -> None:
    model, lr = network(num_classes=3), picture(2, h, w).to(DEVICE)
    routing = RoutingConfig(k=0.1, refine=refine)
    expected = upscale_by(model, lr, routing, PLAIN, scale, bits=bits)
    # A rounding error may take a value over the border between two integers.
    assert_same(
        upscale_by(model, lr, routing, FUSED, scale, bits=bits), expected, 1 if bits else 2e-6
    )


@pytest.mark.parametrize("routing", ROUTINGS[:3], ids=lambda r: r.description)
def test_strips(routing: RoutingConfig) -> None:
    model, lr = network(), picture().to(DEVICE)
    expected = upscale_by(model, lr, routing, PLAIN, 4)
    rows: list[Tensor] = []
    upscale_rows(
        model, lr[0], (36, 52), lambda x, _: rows.append(x), routing,
        Execution(tile_rows=5, fused=True),
    )  # fmt: skip
    assert float((torch.cat(rows, dim=1) / 255 - expected.image[0].clamp(0, 1)).abs().max()) < 0.01


def test_the_tiles_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fused_queries.TILE, torch.float32, (2, 32))
    model, lr = network(), picture(1, 3, 9).to(DEVICE)
    expected = upscale_by(model, lr, ROUTINGS[0], PLAIN, 4)
    assert_same(upscale_by(model, lr, ROUTINGS[0], FUSED, 4), expected)


def test_a_session() -> None:
    model, lr = network(num_classes=3), picture().to(DEVICE)
    session = Session(model, lr, 2.5, execution=FUSED)
    plain = Session(model, lr, 2.5, execution=PLAIN)
    for routing in ROUTINGS:
        assert_same(session.run(routing), plain.run(routing))
    assert float((session.logits - plain.logits).abs().max()) < 1e-5


def test_a_model_of_one_class() -> None:
    torch.manual_seed(0)
    config = default_config("fsrcnn", 2) | {"backbone": SMALL_BACKBONES["fsrcnn"]}
    model = build_network(config | {"upsamplers": [[10]], "classifier": None}).eval().to(DEVICE)
    assert isinstance(model, PCSR)
    lr = picture().to(DEVICE)
    assert_same(
        upscale_by(model, lr, RoutingConfig(), FUSED), upscale_by(model, lr, RoutingConfig(), PLAIN)
    )


def test_changed_weights_are_seen() -> None:
    torch.manual_seed(1)
    model = network.__wrapped__("fsrcnn", 2)
    lr = picture().to(DEVICE)
    for _ in range(2):
        assert_same(
            upscale_by(model, lr, ROUTINGS[0], FUSED, 2),
            upscale_by(model, lr, ROUTINGS[0], PLAIN, 2),
        )
        model.upsampler(0).project.weight.data.mul_(-1)


@pytest.mark.parametrize("part", ["upsamplers", "classifier"])
def test_damaged_weights(part: str) -> None:
    model = network.__wrapped__("fsrcnn", 2)
    with torch.no_grad():
        next(iter(getattr(model, part).parameters())).view(-1)[0] = float("nan")
    with pytest.raises(PCSRError, match="NaN or infinite"):
        upscale_by(model, picture().to(DEVICE), RoutingConfig(), FUSED, 2)


def raises(*args: object, **options: object) -> None:
    raise RuntimeError("no\nluck")


def does_nothing(*args: object, **options: object) -> None:
    pass


@pytest.mark.parametrize(
    ("launch", "said"), [(raises, "RuntimeError: no luck"), (does_nothing, "differs by")]
)
def test_kernels_that_go_wrong(
    launch: Any,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fresh_memory_is_nan: None,
) -> None:
    monkeypatch.setattr(FusedKernels, "_launch", launch)
    model, lr = network.__wrapped__("fsrcnn", 2), picture().to(DEVICE)
    for _ in range(2):
        for routing in ROUTINGS[:2]:
            found = upscale_by(model, lr, routing, FUSED, 2)
            assert_same(found, upscale_by(model, lr, routing, PLAIN, 2))
    messages = [r.getMessage() for r in caplog.records]
    # Each mode that was asked for says so once.
    assert [text.split()[2] for text in messages] == [
        "(routed):",
        "(logits):",
        "(residual):",
        "(given):",
    ]
    assert all(said in text for text in messages[1:])
    assert not any("\n" in text for text in messages)


def test_where_triton_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    grid = model.grid((3, 4), (6, 8))
    assert isinstance(query_kernels(model, grid, torch.float32, True), FusedKernels)
    assert isinstance(query_kernels(model, grid, torch.float32, False), IntegerScale)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert isinstance(query_kernels(model, grid, torch.float32, True), IntegerScale)


def test_widths_are_sums_of_two_powers() -> None:
    found = {width: split_width(width) for width in (1, 10, 16, 20, 44, 58, 74, 100, 200)}
    assert found == {
        1: (16, 0), 10: (16, 0), 16: (16, 0), 20: (32, 0), 44: (32, 16), 58: (64, 0),
        74: (64, 16), 100: (128, 0), 200: (256, 0),
    }  # fmt: skip


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from pcsr_lightning.inference import triton_kernels
from pcsr_lightning.inference.fused_queries import TILE, WARPS, PackedMLPs
from pcsr_lightning.networks import build_network, default_config
import torch
model = build_network(default_config("carn", 2))
packed = PackedMLPs([*model.upsamplers, model.classifier], torch.bfloat16)
th, tw = TILE[torch.bfloat16]
kernel = triton_kernels.upscale_queries
constants = dict(LAYERS=packed.layers, M=2, F=len(packed.bias_F), MODE="route", WITH_BASE=True,
                 BITS=8, PRECISION="tf32x3", TH=th, TW=tw)
halves, floats = ("proj", "weights"), ("rows", "cols", "biases", "logit_biases", "lr",
                                       "weight_rows", "weight_cols", "logits")
bytes_, indices = ("classes", "image"), ("near_rows", "near_cols", "low_rows", "high_rows",
                                         "low_cols", "high_cols")
kinds = dict.fromkeys(halves, "*bf16") | dict.fromkeys(floats, "*fp32")
kinds |= dict.fromkeys(bytes_, "*u8") | dict.fromkeys(indices, "*i64") | {"stats": "*i32"}
kinds |= dict.fromkeys(constants, "constexpr")
signature = {name: kinds.get(name, "i32") for name in kernel.arg_names}
made = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32),
                      options={"num_warps": WARPS[torch.bfloat16]})
assert made.metadata.shared < 100_000
assert "wgmma" in made.asm["ptx"]
"""


@pytest.mark.slow
def test_the_kernel_compiles_for_a_gpu() -> None:
    """Without one: Triton brings the assembler."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", COMPILE], check=True, env=env, timeout=600)

"""A free class (`upsamplers: [..., []]`): its pixels keep the bilinear picture and cost nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tests.small import SMALL_BACKBONES

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.export.onnx_export import export_onnx
from pcsr_lightning.inference import Execution, RoutingConfig, Session, upscale
from pcsr_lightning.inference.fused_queries import FusedKernels, query_kernels
from pcsr_lightning.inference.kernels import QueryKernels
from pcsr_lightning.networks import (
    PCSR,
    BilinearOnly,
    CellQueries,
    PaddedTwin,
    PixelMLP,
    bilinear_upsample,
    branch_macs,
    build_network,
    default_config,
)
from pcsr_lightning.routing.budget import assign_by_budget
from pcsr_lightning.training.initialization import stage_network
from pcsr_lightning.weights import load, save

WIDTHS = {2: [[8, 8], []], 3: [[8, 8], [4], []]}
DRAWN = CellQueries.draw((6, 7), torch.tensor([[24, 28]] * 2), 3, torch.Generator().manual_seed(0))


def network(num_classes: int) -> PCSR:
    """Random weights; about as many pixels in each class."""
    torch.manual_seed(3)
    config = default_config("fsrcnn", num_classes) | {"backbone": SMALL_BACKBONES["fsrcnn"]}
    model = build_network(config | {"upsamplers": WIDTHS[num_classes]})
    assert isinstance(model, PCSR)
    assert model.classifier is not None
    with torch.no_grad():
        logits = model.logits(model.features(picture()), model.grid((19, 23), (76, 92)))
        output = [*model.classifier.modules()][-1] if model.classifier.hidden else None
        bias = model.classifier.project.bias if output is None else output.bias
        bias -= logits.flatten(2).median(2).values[0]
    return model.eval()


def picture() -> torch.Tensor:
    return torch.rand(1, 3, 19, 23, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("scale", [4, 2.5])
@pytest.mark.parametrize("rows", [None, 3])
def test_pixels_of_the_free_class_are_the_bilinear_picture_and_others_are_not(
    num_classes: int, scale: float, rows: int | None
) -> None:
    model, lr = network(num_classes), picture()
    session = Session(model, lr, scale, execution=Execution(tile_rows=rows))
    bilinear = bilinear_upsample(lr, session.size)
    alone = session.run(RoutingConfig(fixed_class=num_classes - 1, refine=False))
    torch.testing.assert_close(alone.image, bilinear, rtol=0, atol=1e-5)  # its rounding

    routed = session.run(RoutingConfig(k=0.0, refine=False))
    assert min(routed.shares) > 0.02
    free = routed.assignment[0] == num_classes - 1
    assert torch.equal(routed.image[0, :, free], alone.image[0, :, free])
    # The plain form: every class at every pixel.
    out = model(lr, session.size)
    made = torch.stack([out.base_B3Q + r for r in out.residual_MB3Q]).unflatten(-1, session.size)
    expected = made.gather(0, routed.assignment[None, :, None].long().expand(1, 1, 3, -1, -1))
    torch.testing.assert_close(routed.image, expected[0].clamp(0, 1), rtol=0, atol=1e-5)


def test_every_class_of_a_kept_session_and_refinement() -> None:
    model, lr = network(3), picture()
    kept, plain = Session(model, lr, 4), Session(model, lr, 4)
    kept.compute_every_class()
    for routing in (
        RoutingConfig(k=0.3),
        RoutingConfig(mode="adaptive"),
        RoutingConfig(budget=0.5),
    ):
        one, two = kept.run(routing), plain.run(routing)
        torch.testing.assert_close(one.image, two.image, rtol=0, atol=1e-6)
        assert torch.equal(one.assignment, two.assignment)


def test_multiply_adds_by_hand() -> None:
    model, lr = network(2), picture()
    result = upscale(model, lr, 4, 0.0, refine=False)
    heavy = int((result.assignment == 0).sum())
    D, lr_pixels, pixels = 8, 19 * 23, 76 * 92
    macs = branch_macs(model)
    assert macs.upsamplers == ((D + 4) * 8 + 8 * 8 + 8 * 3, 0)
    assert model.classifier is not None
    assert model.classifier.hidden == ()
    # Executed: first layers once for each LR pixel. The free class adds nothing to the classifier.
    executed = lr_pixels * (macs.backbone + D * 2 + D * 8) + heavy * (8 * 8 + 8 * 3)
    assert result.flops.gmacs == pytest.approx(executed / 1e9)
    published = lr_pixels * macs.backbone + heavy * macs.upsamplers[0] + pixels * (D + 4) * 2
    assert result.flops.gflops_published == pytest.approx(2 * published / 1e9)
    all_free = upscale(model, lr, 4, 1e6, refine=False).flops
    assert all_free.gmacs == pytest.approx(lr_pixels * (macs.backbone + D * 2) / 1e9)


def test_a_budget_pays_for_the_pixels_that_leave_the_free_class() -> None:
    score = torch.stack([torch.arange(12.0).view(3, 4), torch.full((3, 4), 16.0)])[None]
    found = assign_by_budget(score, (88.0, 0.0), 5 * 16 * 88.0)
    assert (found == 0).sum() == 5


@pytest.mark.parametrize("num_classes", [2, 3])
def test_saved_and_loaded(num_classes: int, tmp_path: Path) -> None:
    model, lr = network(num_classes), picture()
    save(model, tmp_path / "free", {})
    again = load(tmp_path / "free.safetensors")
    assert isinstance(again, PCSR)
    assert again.config()["upsamplers"] == WIDTHS[num_classes]
    assert not any(name.startswith(f"upsamplers.{num_classes - 1}") for name in again.state_dict())
    assert torch.equal(upscale(again, lr, 4, 0.0).image, upscale(model, lr, 4, 0.0).image)


@pytest.mark.slow
def test_exported_to_onnx(tmp_path: Path) -> None:
    model, lr = network(3), picture()
    export_onnx(model, tmp_path / "free.onnx", 4, name="free")
    run = onnxruntime.InferenceSession(tmp_path / "free.onnx", providers=["CPUExecutionProvider"])
    for k in (0.0, 1e6):
        image, _ = run.run(
            ["enlarged", "classes"], {"image": lr.numpy(), "k": np.array(k, np.float32)}
        )
        expected = upscale(model, lr, 4, k).image
        torch.testing.assert_close(torch.from_numpy(image), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("queries", [None, torch.tensor([0, 5, 300]), DRAWN])
def test_training_sees_it_like_any_class(queries: torch.Tensor | CellQueries | None) -> None:
    model, lr = network(3).train(), picture()[..., :6, :7].repeat(2, 1, 1, 1)
    out, twin = (run(lr, (24, 28), queries) for run in (model, PaddedTwin(model)))
    assert out.residual_MB3Q[2].shape == out.residual_MB3Q[0].shape
    assert not out.residual_MB3Q[2].any()
    torch.testing.assert_close(out.mixed(), twin.mixed())
    out.mixed().sum().backward()
    assert model.classifier is not None
    assert all(p.grad is not None for p in model.classifier.parameters())


def test_a_gpu_takes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcsr_lightning.inference.fused_queries.has_triton", lambda _: True)
    model = network(2)
    kernels = query_kernels(model, model.grid((19, 23), (76, 92)), torch.float32, fused=True)
    assert isinstance(kernels, QueryKernels)
    assert not isinstance(kernels, FusedKernels)


@pytest.mark.parametrize("widths", [[[], [4]], [[8], [], []], [[8], [], [4]]])
def test_only_the_last_class_can_be_free(widths: list[list[int]]) -> None:
    refused = pytest.raises(ConfigError, match=r"upsampler \d has no hidden widths")
    with refused:
        build_network(default_config("fsrcnn", len(widths)) | {"upsamplers": widths})
    with refused:  # before the stages that lead there are trained
        stage_network("1", "fsrcnn", len(widths), upsamplers=widths)
    with refused:
        build_network(default_config("fsrcnn", 1) | {"upsamplers": [[]]})


def test_an_upsampler_of_one_linear_layer_is_refused() -> None:
    model = network(2)
    with pytest.raises(ConfigError, match="needs a hidden layer"):
        PCSR(model.backbone, [model.upsampler(0), PixelMLP(8, [], 3)], model.classifier)
    PCSR(model.backbone, [model.upsampler(0), BilinearOnly(8)], model.classifier)

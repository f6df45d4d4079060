"""The fast way through a network must give what the plain way gives, and do no more work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference import Execution, RoutingConfig, Session, kernels, upscale
from pcsr_lightning.inference.kernels import MLPKernel
from pcsr_lightning.networks import (
    PCSR,
    bilinear_upsample,
    branch_macs,
    count_macs,
    hoisted_macs,
    plain_inputs,
)
from pcsr_lightning.routing.adm import assign_adaptive
from pcsr_lightning.routing.by_k import assign_by_k
from pcsr_lightning.routing.cost import class_costs
from pcsr_lightning.routing.refine import refine

MakeNetwork = Callable[..., PCSR]
SCALES = [1, 2.5, 4, (3.7, 2), (4, 2.3)]


def plain(
    model: PCSR, lr: Tensor, size: tuple[int, int], routing: RoutingConfig
) -> tuple[Tensor, Tensor]:
    """Every class at every pixel by concatenated inputs, as LIIF does; then one is picked."""
    M, (h, w), (H, W) = model.num_classes, lr.shape[-2:], size
    with torch.no_grad():
        grid = model.grid((h, w), size)
        x = plain_inputs(model.features(lr), grid)
        out = torch.stack([model.upsampler(j)(x) for j in range(M)])
        logits = (
            torch.zeros(len(lr), 1, H, W)
            if model.classifier is None
            else model.classifier(x).transpose(1, 2).reshape(len(lr), M, H, W)
        )
        if routing.fixed_class is not None:
            assignment = torch.full((len(lr), H, W), routing.fixed_class, dtype=torch.uint8)
        elif routing.mode == "adaptive":
            assignment = assign_adaptive(logits) if M > 1 else torch.zeros(len(lr), H, W).byte()
        else:
            branches = branch_macs(model).branches((H / h, W / w))
            assignment = assign_by_k(logits, class_costs(branches, routing.cost), routing.value)
        image = bilinear_upsample(lr, size)
        for j in range(M):
            residual = out[j].transpose(1, 2).reshape(len(lr), 3, H, W)
            image = torch.where(
                assignment[:, None] == j, bilinear_upsample(lr, size) + residual, image
            )
        if routing.refines((H / h, W / w)):
            image = refine(image, assignment, M)
    return image.clamp(0, 1), assignment


def check(
    model: PCSR, lr: Tensor, scale: Any, routing: RoutingConfig, tile_rows: int | None = None
) -> None:
    found = Session(model, lr, scale, execution=Execution(tile_rows=tile_rows))
    result = found.run(routing)
    image, assignment = plain(model, lr, found.size, routing)
    # A verdict on the very edge may fall either way by rounding.
    assert (result.assignment == assignment).float().mean() > 0.999
    same = (result.assignment == assignment).all(dim=0)
    assert (result.image - image).abs()[..., same].max() <= 1e-5
    assert result.image.shape == (len(lr), 3, *found.size)
    assert result.assignment.dtype == torch.uint8
    assert result.image.dtype == torch.float32


@pytest.mark.parametrize(
    ("num_classes", "scale"),
    [*((2, scale) for scale in SCALES), (1, 4), (1, 2.5), (3, 4), (3, 2.5), (4, 4), (4, (3.7, 2))],
    ids=str,
)
def test_equals_the_plain_way(make_network: MakeNetwork, num_classes: int, scale: Any) -> None:
    model = make_network(num_classes=num_classes)
    lr = torch.rand(2, 3, 10, 9)
    modes = [
        RoutingConfig(k=0.4, cost="proportional"),
        RoutingConfig("adaptive"),
        RoutingConfig(fixed_class=0, refine=False),
    ]
    if num_classes > 1:
        modes += [
            RoutingConfig(k=-3.0),
            RoutingConfig("k", refine=False),
            RoutingConfig(fixed_class=num_classes - 1),
        ]
    for tile_rows in (None, 3):
        for routing in modes:
            check(model, lr, scale, routing, tile_rows)


def test_all_classes_are_used(make_network: MakeNetwork) -> None:
    """Otherwise the comparison above would compare little."""
    for num_classes in (2, 3, 4):
        shares = upscale(make_network(num_classes=num_classes), torch.rand(1, 3, 13, 11)).shares
        assert min(shares) > 0.02, shares


@pytest.mark.parametrize("backbone", ["carn", "srresnet", "bsrn"])
def test_other_backbones(make_network: MakeNetwork, backbone: str) -> None:
    check(make_network(backbone, 2), torch.rand(1, 3, 16, 17), (3.7, 4), RoutingConfig())


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(h=1, w=1, sy=1, sx=8, tile_rows=1, routing={})
@example(h=9, w=1, sy=2.5, sx=2.5, tile_rows=9, routing={"adaptive": True})
@given(
    h=st.integers(1, 7),
    w=st.integers(1, 7),
    sy=st.floats(1, 8),
    sx=st.floats(1, 8),
    tile_rows=st.integers(1, 8),
    routing=st.sampled_from([{}, {"adaptive": True}, {"fixed_class": 2}]),
)
def test_any_size_scale_and_tile(
    make_network: MakeNetwork,
    h: int,
    w: int,
    sy: float,
    sx: float,
    tile_rows: int,
    routing: dict[str, Any],
) -> None:
    lr = torch.rand(1, 3, h, w)
    check(make_network(num_classes=3), lr, (sy, sx), RoutingConfig(**routing), tile_rows)


class Counted:
    """Rows that pass through each MLP's first and last part, and the most at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.first: dict[str, int] = {}
        self.rest: dict[str, int] = {}
        self.most = 0
        names: dict[int, str] = {}
        make, project, planar = MLPKernel.__init__, MLPKernel.project, MLPKernel.project_planar

        def made(mlp: MLPKernel, *args: Any) -> None:
            make(mlp, *args)
            names[id(mlp)] = args[-1]

        def first(run: Any) -> Any:
            def counted(mlp: MLPKernel, feat_PD: Tensor) -> Tensor:
                name = names[id(mlp)]
                self.first[name] = self.first.get(name, 0) + len(feat_PD)
                out: Tensor = run(mlp, feat_PD)
                return out

            return counted

        def rest(run: Any, axis: int) -> Any:
            def counted(mlp: MLPKernel, x: Tensor) -> Tensor:
                name = names[id(mlp)]
                self.rest[name] = self.rest.get(name, 0) + x.shape[axis]
                self.most = max(self.most, x.shape[axis])
                out: Tensor = run(mlp, x)
                return out

            return counted

        monkeypatch.setattr(MLPKernel, "__init__", made)
        monkeypatch.setattr(MLPKernel, "project", first(project))
        monkeypatch.setattr(MLPKernel, "project_planar", first(planar))
        # Before the last block is filled up.
        finish, counted_planar = kernels._finish, rest(MLPKernel.finish_planar, 1)
        monkeypatch.setattr(kernels, "_finish", rest(finish, 0))
        monkeypatch.setattr(MLPKernel, "finish_planar", counted_planar)


@pytest.mark.parametrize("scale", [4, 2.5, (1, 3.2)], ids=str)
def test_each_pixel_meets_its_own_upsampler_only(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch, scale: Any
) -> None:
    model, counted = make_network(num_classes=3), Counted(monkeypatch)
    lr = torch.rand(2, 3, 12, 10)
    result = Session(model, lr, scale, execution=Execution(tile_rows=5)).run(RoutingConfig(k=0.2))
    counts = torch.bincount(result.assignment.flatten(), minlength=3).tolist()
    assert [counted.rest[f"upsampler {j}"] for j in range(3)] == counts
    assert counted.rest["the classifier"] == result.assignment.numel()
    # No LR pixel is projected twice, whatever the scale.
    assert counted.first["the classifier"] == 240
    assert all(counted.first[f"upsampler {j}"] <= 240 for j in range(3))


def test_a_strip_without_a_class_does_not_prepare_it(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = torch.ones(1, 48, 40, dtype=torch.uint8)
    by_hand[:, :8] = 0
    by_hand[:, 20, 7] = 0
    model, counted = make_network(), Counted(monkeypatch)
    monkeypatch.setattr(Session, "assign", lambda *_: by_hand)
    one_row = Execution(tile_rows=1)
    found = Session(model, torch.rand(1, 3, 12, 10), 4, execution=one_row)
    result = found.run(RoutingConfig(refine=False))
    assert (counted.first["upsampler 0"], counted.first["upsampler 1"]) == (30, 100)
    tail = [hoisted_macs(model.upsampler(j), 0, 1) for j in range(2)]
    macs = 120 * branch_macs(model).backbone + 321 * tail[0] + 1599 * tail[1]
    macs += 30 * 48 * 58 + 100 * 48 * 10 + 120 * 48 * 2
    assert result.flops.gmacs * 1e9 == pytest.approx(macs, rel=1e-9)


@pytest.mark.parametrize("scale", [4, 2.5])
def test_working_memory_does_not_grow_with_the_picture(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    model, counted = make_network(), Counted(monkeypatch)
    most = []
    for size in ((300, 90), (900, 90), (30, 900)):
        counted.most = 0
        upscale(model, torch.rand(1, 3, *size), scale=scale)
        most.append(counted.most)
    assert most[0] > 0
    assert max(most) <= 1.5 * most[0]


def test_one_session_serves_all_routings(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, counted = make_network(), Counted(monkeypatch)
    found = Session(model, torch.rand(1, 3, 8, 8), 3)
    found.run(RoutingConfig(fixed_class=1))
    assert "the classifier" not in counted.rest, "a single class asks for no verdict"
    shares = [found.run(RoutingConfig(k=k)).shares[0] for k in (-50.0, -1.0, 0.0, 1.0, 50.0)]
    found.run(RoutingConfig("adaptive"))
    found.run(RoutingConfig(budget=0.6))
    assert counted.rest["the classifier"] == 24 * 24
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1
    assert shares[-1] == 0


class Whole(nn.Module):
    """The fast path as a module, so that fvcore can trace it."""

    def __init__(self, model: PCSR, routing: RoutingConfig) -> None:
        super().__init__()
        self.model, self.routing = model, routing

    def forward(self, lr: Tensor) -> Tensor:
        return upscale(self.model, lr, routing=self.routing.replace(refine=False)).image


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        *(("fsrcnn", o) for o in ({}, {"k": 1.5}, {"adaptive": True}, {"fixed_class": 1})),
        ("carn", {}),
    ],
    ids=str,
)
def test_flops_are_those_that_fvcore_counts(
    make_network: MakeNetwork, backbone: str, options: dict[str, Any]
) -> None:
    model, routing = make_network(backbone, 2), RoutingConfig(**options)
    lr = torch.rand(1, 3, 16, 24)
    flops = Session(model, lr, 4).run(routing).flops
    # The line above has counted the parts already, so the trace below holds the picture alone.
    # CARN's batch norm (0.2%) is folded into its convolutions.
    assert flops.gmacs == pytest.approx(count_macs(Whole(model, routing), lr) / 1e9, rel=5e-3)


def test_batch_equals_singles(make_network: MakeNetwork) -> None:
    model, lr = make_network(num_classes=3), torch.rand(3, 3, 9, 7)
    lr[1] = 0.5
    for routing in (RoutingConfig(k=0.1), RoutingConfig("adaptive")):
        together = Session(model, lr, 2.5).run(routing)
        singles = [Session(model, one[None], 2.5).run(routing) for one in lr]
        torch.testing.assert_close(
            together.image, torch.cat([s.image for s in singles]), atol=1e-6, rtol=0
        )
        assert torch.equal(together.assignment, torch.cat([s.assignment for s in singles]))
        gmacs = sum(s.flops.gmacs for s in singles)
        assert together.flops.gmacs == pytest.approx(gmacs, rel=0.05)


def test_training_mode_is_neither_used_nor_changed(make_network: MakeNetwork) -> None:
    model = make_network("carn", 2)
    expected = upscale(model, lr := torch.rand(1, 3, 8, 8)).image
    model.train()
    model.upsamplers.eval()
    before = [part.training for part in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(upscale(model, lr).image, expected)
    assert [part.training for part in model.modules()] == before
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_results_are_ordinary_tensors(make_network: MakeNetwork) -> None:
    result = upscale(make_network(), torch.rand(1, 3, 4, 4))
    assert not result.image.requires_grad
    result.image.mul_(255)
    result.assignment.add_(1)


def test_class_that_is_not_there(make_network: MakeNetwork) -> None:
    with pytest.raises(ConfigError, match=r"no class 2.* 0 \(heaviest\) to 1"):
        upscale(make_network(), torch.rand(1, 3, 4, 4), fixed_class=2)
    with pytest.raises(ConfigError, match="one upsampler"):
        _ = Session(make_network(num_classes=1), torch.rand(1, 3, 4, 4)).logits


def test_single_class_network(make_network: MakeNetwork) -> None:
    model = make_network(num_classes=1)
    for routing in (RoutingConfig(), RoutingConfig("adaptive"), RoutingConfig(fixed_class=0)):
        result = Session(model, torch.rand(1, 3, 5, 4), 3).run(routing)
        assert result.shares == (1.0,)
        assert int(result.assignment.max()) == 0


@pytest.mark.parametrize(
    ("scale", "refined"), [(1.5, False), (2, False), (3.9, False), (4, True), (6, True)]
)
def test_seams_are_smoothed_from_scale_4_up(
    make_network: MakeNetwork, scale: float, refined: bool
) -> None:
    """Below that the mean over 3 x 3 pixels costs more than seams do."""
    model, lr = make_network(), torch.rand(1, 3, 20, 30)
    found = Session(model, lr, scale)
    by_itself, asked = found.run(RoutingConfig()), found.run(RoutingConfig(refine=refined))
    other = found.run(RoutingConfig(refine=not refined))
    assert 0 < by_itself.shares[0] < 1
    assert torch.equal(by_itself.image, asked.image)
    assert not torch.equal(by_itself.image, other.image)

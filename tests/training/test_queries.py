"""``stage.queries=per_pixel:N`` against the plain form of a stage at the very same pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small import SMALL_BACKBONES
from tests.training.test_stages import Crops, changed, fit, made, snapshot
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.data import TrainBatch
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import PCSR, CellQueries, bilinear_upsample, plain_inputs
from pcsr_lightning.training import (
    FirstStage,
    LaterStage,
    OriginalStage,
    SquaredError,
    SRStage,
    WeightedSum,
)
from pcsr_lightning.training.distillation import Teacher
from pcsr_lightning.training.initialization import stage_network
from pcsr_lightning.training.reinitialization import reinitialize_dead_units

LR = 12
SIDES = {"x4": [48] * 3, "x2.75": [33] * 3, "mixed": [24, 33, 47]}


def crops(sides: list[int], integers: bool = False, seed: int = 0) -> TrainBatch:
    """Crops of these HR sides, at the top left of one tensor; what lies beyond is not a number."""
    generator = torch.Generator().manual_seed(seed)
    side = max(sides)
    lr = torch.rand(len(sides), 3, LR, LR, generator=generator)
    hr = torch.randint(0, 256, (len(sides), 3, side, side), generator=generator).to(torch.uint8)
    mixed = len(set(sides)) > 1
    if not integers:
        hr = hr.float() / 255
        for b, own in enumerate(sides):
            hr[b, :, own:] = hr[b, :, :, own:] = torch.nan
    return TrainBatch(lr, hr, torch.tensor(sides) if mixed else None)


def small_stage(backbone: str, classes: int, **options: Any) -> SRStage:
    """A stage whose network has random weights, in training mode."""
    torch.manual_seed(0)
    args = {k: v for k, v in SMALL_BACKBONES[backbone].items() if k != "name"}
    kind = FirstStage if classes == 1 else LaterStage
    widths: list[list[int]] = [[8, 8], [6], []][: max(classes, 2)]
    network = stage_network(
        str(classes), backbone, len(widths), args, widths, None if classes == 1 else [5]
    )
    stage = made(kind, network, **options)
    stage.network.train()
    for part in stage.frozen_parts().values():
        part.requires_grad_(False).eval()
    stage.sum_over_ranks = lambda x: x  # type: ignore[method-assign]  # there is no trainer
    return stage


def plain_losses(stage: SRStage, batch: TrainBatch, queries: CellQueries) -> Tensor:
    """Eq. 6 to 8 at these pixels: crop by crop, MLPs on concatenated inputs, flat indices."""
    network = stage.network
    assert isinstance(network, PCSR)
    feat = network.features(batch.lr_B3hw)
    B, _, H, _ = batch.hr_B3HW.shape
    sides = [H] * B if batch.side_B is None else batch.side_B.tolist()
    mixed, right, probabilities = [], [], []
    for b, side in enumerate(sides):
        flat = (queries.row_BhwN[b] * side + queries.col_BhwN[b]).flatten()
        inputs = plain_inputs(feat[b : b + 1], network.grid((LR, LR), (side, side)))[0, flat]
        outputs = torch.stack([network.upsampler(j)(inputs) for j in range(network.num_classes)])
        if network.classifier is None:
            [residual] = outputs
        else:
            probabilities.append(network.classifier(inputs).softmax(1))
            residual = torch.einsum("qm,mqc->qc", probabilities[-1], outputs)
        base = bilinear_upsample(batch.lr_B3hw[b : b + 1], (side, side))[0].flatten(1)[:, flat]
        mixed.append(base.T + residual)
        hr = batch.hr_B3HW[b, :, :side, :side].flatten(1)[:, flat]
        right.append((hr.float() / 255 if hr.dtype == torch.uint8 else hr).T)
    loss: Tensor = stage.loss(torch.cat(mixed), torch.cat(right))
    if not probabilities:
        return loss
    assert isinstance(stage, LaterStage)
    totals = torch.cat(probabilities).sum(0)
    equal = totals.detach().sum() / len(totals)
    return stage.w_recon * loss + stage.w_avg * ((totals - equal).abs() / equal).mean()


def gradients(stage: SRStage, losses: Callable[[], Tensor]) -> dict[str, Tensor]:
    """The loss and the gradients of everything that is trained."""
    stage.network.zero_grad()
    loss = losses()
    loss.backward()  # type: ignore[no-untyped-call]
    named = stage.network.named_parameters()
    return {"loss": loss.detach(), **{k: p.grad.clone() for k, p in named if p.grad is not None}}


@pytest.mark.parametrize("integers", [False, True], ids=["float32", "uint8"])
@pytest.mark.parametrize("sides", list(SIDES))
@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("backbone", ["fsrcnn", "carn"])
def test_loss_and_gradients_are_those_of_the_plain_form(
    backbone: str, classes: int, sides: str, integers: bool
) -> None:
    stage = small_stage(backbone, classes, queries="per_pixel:2", loss=SquaredError())
    batch = crops(SIDES[sides], integers)
    queries = stage.draw_queries(batch)
    assert isinstance(queries, CellQueries)
    found = gradients(stage, lambda: stage.losses(batch)[0])
    plain = gradients(stage, lambda: plain_losses(stage, batch, queries))
    trained = {k for k, p in stage.network.named_parameters() if p.requires_grad}
    assert found.keys() == plain.keys() == {"loss", *trained}
    for name, expected in plain.items():
        # w_recon makes the gradients of later stages large: relative to those.
        scale = max(1.0, float(expected.abs().max()))
        error = float((found[name] - expected).abs().max()) / scale
        assert error < 1e-5, f"{name}: {error:.1e}"
        assert float(expected.abs().max()) > 1e-5, name


@pytest.mark.parametrize("backbone", ["fsrcnn", "carn"])
@pytest.mark.parametrize("classes", [1, 2])
def test_flat_indices_are_another_plain_form(backbone: str, classes: int) -> None:
    """One crop, so that the library's own way at flat indices can take the same pixels."""
    stage = small_stage(backbone, classes, queries="per_pixel:3")
    batch = crops([33])
    queries = stage.draw_queries(batch)
    assert isinstance(queries, CellQueries)
    flat = (queries.row_BhwN * 33 + queries.col_BhwN).flatten()
    found = gradients(stage, lambda: stage.losses(batch)[0])
    stage.draw_queries = lambda _: flat  # type: ignore[method-assign]
    plain = gradients(stage, lambda: stage.losses(batch)[0])
    assert found.keys() == plain.keys()
    for name, expected in plain.items():
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("queries", [None, 50, "per_pixel:2"])
@pytest.mark.parametrize("classes", [1, 2])
def test_uint8_is_the_same_ground_truth(queries: Any, classes: int) -> None:
    stage = small_stage("fsrcnn", classes, queries=queries)
    batch = crops([48] * 2, integers=True)
    as_float = batch._replace(hr_B3HW=batch.hr_B3HW.float() / 255)
    assert torch.equal(stage.losses(batch)[0], stage.losses(as_float)[0])
    original = made(OriginalStage, stage_network("original", "fsrcnn", 2, {"d": 8, "s": 4, "m": 1}))
    assert torch.equal(original.losses(batch)[0], original.losses(as_float)[0])


def test_draws_depend_on_seed_and_step() -> None:
    batch = crops([48] * 2)
    for queries in (100, "per_pixel:2"):
        drawn = [
            small_stage("fsrcnn", 1, queries=queries, seed=seed).draw_queries(batch)
            for seed in (3, 3, 4)
        ]
        rows = [q.row_BhwN if isinstance(q, CellQueries) else q for q in drawn]
        assert torch.equal(rows[0], rows[1])
        assert not torch.equal(rows[0], rows[2])


def test_in_training_each_step_draws_anew(tmp_path: Path) -> None:
    stage = small_stage("fsrcnn", 1, queries="per_pixel:1")
    seen: list[Tensor] = []
    draw = stage.draw_queries

    def kept(batch: TrainBatch) -> CellQueries:
        queries = draw(batch)
        seen.append(queries.row_BhwN)
        return queries

    stage.draw_queries = kept  # type: ignore[method-assign]
    fit(stage, tmp_path)
    assert len(seen) == 6
    assert len({tuple(rows.flatten().tolist()) for rows in seen}) == 6


def test_a_later_stage_keeps_what_was_trained(tmp_path: Path) -> None:
    stage = small_stage("carn", 2, queries="per_pixel:2")
    before = snapshot(stage.network)
    fit(stage, tmp_path)
    assert {key.partition(".")[0] for key in changed(stage.network, before)} == {
        "classifier", "upsamplers",
    }  # fmt: skip
    assert not any(key.startswith("upsamplers.0") for key in changed(stage.network, before))


def test_a_teacher_sees_the_same_pixels() -> None:
    stage = small_stage("fsrcnn", 1, queries="per_pixel:2", loss=SquaredError())
    batch = crops(SIDES["mixed"])
    student = stage.network
    assert isinstance(student, PCSR)
    stage.teacher = Teacher(small_stage("fsrcnn", 1).network)
    stage.teacher.network.load_state_dict(student.state_dict())
    assert stage.losses(batch)[0].item() == 0


def test_dead_units_are_judged_by_the_drawn_pixels(tmp_path: Path) -> None:
    stage = small_stage("fsrcnn", 1, queries="per_pixel:2", reinitialize_dead_units=3)
    network = stage.network
    assert isinstance(network, PCSR)
    mlp = network.upsampler(0)
    mlp.project.bias.data[2] = -100.0
    batch = crops(SIDES["mixed"])
    queries = stage.draw_queries(batch)
    before = network(batch.lr_B3hw, None, queries).mixed()
    draws = torch.Generator().manual_seed(0)
    dead = reinitialize_dead_units(network, mlp, batch.lr_B3hw, None, queries, draws)
    assert dead[0] >= 1
    torch.testing.assert_close(network(batch.lr_B3hw, None, queries).mixed(), before)
    again = reinitialize_dead_units(network, mlp, batch.lr_B3hw, None, queries, draws)
    assert again == [0, 0]
    mlp.project.bias.data[2] = -100.0
    trainer = fit(stage, tmp_path)
    assert "train/dead_units" in trainer.callback_metrics
    assert mlp.project.bias[2] > -50


@pytest.mark.parametrize(
    "queries",
    [0, -3, "per_pixel:0", "per_pixel", "per_pixle:2", "per_pixel:", "per_pixel:-1",
     "per_pixel:1.5", "per_pixel:2 ", "per_pixel: 2", "all"],
)  # fmt: skip
def test_other_queries_are_refused(queries: Any) -> None:
    said = r"^stage\.queries=.*: must be a whole number of at least 1, per_pixel:N .* null for all"
    with pytest.raises(ConfigError, match=said) as refused:
        small_stage("fsrcnn", 1, queries=queries)
    assert "\n" not in str(refused.value)


def test_losses_on_pictures_are_refused() -> None:
    class Blurred(torch.nn.L1Loss):
        needs_pictures = True

    for loss in (Blurred(), WeightedSum({"a": torch.nn.L1Loss(), "b": Blurred()})):
        with pytest.raises(ConfigError, match=r"stage\.queries=per_pixel:2: this loss needs"):
            small_stage("fsrcnn", 1, queries="per_pixel:2", loss=loss)

    class Unsaid(torch.nn.Module):
        def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
            return (F.avg_pool2d(sr, 2) - F.avg_pool2d(hr, 2)).abs().mean(dim=(1, 2, 3)).mean()

    stage = small_stage("fsrcnn", 1, queries="per_pixel:2", loss=Unsaid())
    with pytest.raises(ConfigError, match=r"drawn pixels, \(2, 3, 288\).*stage\.queries=null"):
        stage.losses(crops([48] * 2))


@pytest.mark.parametrize("queries", [None, 100])
def test_crops_of_different_scales_need_pixels_of_each_lr_pixel(
    queries: int | None, tmp_path: Path
) -> None:
    given = "null" if queries is None else queries
    said = rf"^data\.mix_scales=true.*stage\.queries={given} .*per_pixel:2 or data\.mix_scales=fa"
    for classes in (1, 2):
        with pytest.raises(ConfigError, match=said):
            small_stage("fsrcnn", classes, queries=queries).losses(crops(SIDES["mixed"]))
    original = made(OriginalStage, stage_network("original", "fsrcnn", 2, {"d": 8, "s": 4, "m": 1}))
    with pytest.raises(ConfigError, match=r"an original model.*set data\.mix_scales=false"):
        original.losses(crops(SIDES["mixed"]))


@pytest.mark.parametrize(
    ("side_B", "found"),
    [
        (torch.tensor([32.0, 32.0]), r"torch\.float32 of shape \(2,\)"),
        (torch.tensor([32]), r"torch\.int64 of shape \(1,\)"),
        ([32, 32], "list"),
        (torch.tensor([7, 32]), r"\[7, 32\]"),
        (torch.tensor([32, 33]), r"\[32, 33\]"),
    ],
)
def test_sides_of_another_kind_are_refused(side_B: Any, found: str, tmp_path: Path) -> None:
    class Sided(Crops):
        def __getitem__(self, i: int) -> Any:
            return TrainBatch(*super().__getitem__(i), side_B)

    with pytest.raises(
        ConfigError, match=rf"side_B .*torch\.int64 of shape \(2,\) from 8 to 32.*is {found}$"
    ):
        fit(small_stage("fsrcnn", 1, queries="per_pixel:2"), tmp_path, Sided())

"""ClassSR and ARM: losses and choices by hand, and their stages through the commands."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands import run_command
from tests.small import small_patch_routed, write_textures
from tests.training.test_stages import made

from pcsr_lightning.data import TrainBatch
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation import Layout, benchmark, upscale_patches
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.patches import upscale_padded
from pcsr_lightning.inference import Flops, RoutingConfig, original_flops
from pcsr_lightning.networks import ARM, ClassSR, PatchRouted
from pcsr_lightning.networks.arm import edge_score
from pcsr_lightning.networks.patch_routed import at_width
from pcsr_lightning.training import ARMStage, ClassSRBranches, ClassSRStage
from pcsr_lightning.training.losses import class_loss
from pcsr_lightning.training.modules.classsr_stages import by_difficulty
from pcsr_lightning.weights import load

PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
SCALE = (4.0, 4.0)


def fixed_scores(model: PatchRouted, scores_NM: torch.Tensor, monkeypatch: Any) -> None:
    monkeypatch.setattr(model, "scores", lambda lr: scores_NM[: len(lr)])


def test_class_loss_by_hand() -> None:
    # 2 - (.5 + .6 + .1) and 2 - (.2 + .5 + .3)
    assert class_loss(PROBABILITIES).item() == pytest.approx((0.8 + 1.0) / 2)
    assert class_loss(torch.eye(3)).item() == pytest.approx(0)
    assert class_loss(torch.full((1, 3), 1 / 3)).item() == pytest.approx(2)


def test_the_loss_of_the_classifier_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_patch_routed("classsr")
    fixed_scores(model, PROBABILITIES.log(), monkeypatch)
    stage = made(ClassSRStage, model)
    monkeypatch.setattr(stage, "sum_over_ranks", lambda x: x)  # without a trainer: one process
    batch = TrainBatch(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32))
    loss, parts = stage.losses(batch)
    p = PROBABILITIES[:, :, None, None, None]
    mixed = sum(p[:, j] * model.run_class(j, batch.lr_B3hw) for j in range(3))
    assert isinstance(mixed, torch.Tensor)
    recon = (mixed - batch.hr_B3HW).abs().mean()
    # Sums of the classes over the batch: .8, .5, .7; two thirds each would be equal shares.
    average = (0.8 - 2 / 3 + 2 / 3 - 0.5 + 0.7 - 2 / 3) / (2 / 3 * 4)
    assert parts["avg"].item() == pytest.approx(average, rel=1e-5)
    assert loss.item() == pytest.approx(1000 * recon.item() + 0.5 * 0.9 + 3 * average, rel=1e-5)


def test_the_hardest_crops_train_the_widest_network(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_patch_routed("classsr")
    lr = torch.full((6, 3, 8, 8), 0.5)
    hr = torch.full((6, 3, 32, 32), 0.5)
    for i, off in enumerate((0.1, 0.4, 0.2, 0.0, 0.3, 0.5)):
        hr[i] += off
    assert by_difficulty(lr, hr).tolist() == [5, 1, 4, 2, 0, 3]
    seen: list[tuple[int, int]] = []
    run = model.run_class
    monkeypatch.setattr(model, "run_class", lambda j, x: (seen.append((j, len(x))), run(j, x))[1])
    loss, parts = made(ClassSRBranches, model).losses(TrainBatch(lr, hr))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert loss.item() == pytest.approx(sum(part.item() for part in parts.values()))
    with pytest.raises(ConfigError, match=r"batch_size=2: each of the 3 networks"):
        made(ClassSRBranches, model).losses(TrainBatch(lr[:2], hr[:2]))


def test_each_patch_takes_its_class_and_pays_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_patch_routed("classsr")
    assert isinstance(model, ClassSR)
    scores = torch.tensor([[0.0, 3.0, 1.0], [5.0, 0.0, 4.0]])
    fixed_scores(model, scores, monkeypatch)
    lr = torch.rand(1, 3, 32, 60)
    result = upscale_patches(model, lr, SCALE, RoutingConfig(), Layout(32, 28))
    with torch.no_grad():
        left, right = model.branch(1)(lr[..., :32]), model.branch(0)(lr[..., 28:])
    torch.testing.assert_close(result.image[..., :112], left.clamp(0, 1)[..., :112])
    torch.testing.assert_close(result.image[..., 128:], right.clamp(0, 1)[..., 16:])
    both = (left.clamp(0, 1)[..., 112:] + right.clamp(0, 1)[..., :16]) / 2
    torch.testing.assert_close(result.image[..., 112:128], both)
    assert result.shares == (0.5, 0.5, 0.0)
    # By hand: two patches of 32 x 32; the classifier's convolutions on their 8 x 8 cells, the mean.
    cells = 64 * (48 * 128 + 3 * 128 * 128 + 128 * 32 + 32) + 32 * 3
    networks = sum(original_flops(model.branch(j), 1024).gmacs for j in (0, 1))
    assert result.flops.gmacs == pytest.approx(networks + 2 * cells / 1e9, rel=1e-6)
    # A high k takes the cheapest, a low one the dearest; without a choice nobody is paid for it.
    cheap = upscale_patches(model, lr, SCALE, RoutingConfig(k=1e3), Layout(32, 28))
    assert cheap.shares == (0, 0, 1)
    only = upscale_patches(model, lr, SCALE, RoutingConfig(fixed_class=2), Layout(32, 28))
    assert only.flops.gmacs == pytest.approx(cheap.flops.gmacs - 2 * cells / 1e9, rel=1e-6)


def test_arm_weighs_psnr_against_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_patch_routed("arm")
    table = torch.tensor([[30.0, 30.1, 29.8, 29.0], [28.0, 27.9, 27.0, 24.0]])
    fixed_scores(model, table, monkeypatch)
    lr = torch.rand(1, 3, 32, 60)
    costs = [original_flops(at_width(model.widest, w), 1024) for w in (8, 6, 4)]
    costs.append(Flops(0.0, 0.0))
    share = [cost.gflops_published / costs[0].gflops_published for cost in costs]
    assert share[0] == 1 > share[1] > share[2] > share[3] == 0
    for k in (0.0, 0.3, 1.0, 3.0, 50.0):
        result = upscale_patches(model, lr, SCALE, RoutingConfig(k=k), Layout(32, 28))
        best = [max(range(4), key=lambda j: row[j] - k * share[j]) for row in table.tolist()]
        assert result.shares == tuple(best.count(j) / 2 for j in range(4))
        spent = sum(costs[j].gflops_published for j in best)
        assert result.flops.gflops_published == pytest.approx(spent, rel=1e-9)
    assert result.shares == (0, 0, 0, 1)  # bicubic, for nothing
    assert result.flops == Flops(0.0, 0.0)


def test_arm_draws_the_dear_ones_more_often() -> None:
    model = small_patch_routed("arm")
    stage = made(ARMStage, model)
    costs = [original_flops(at_width(model.widest, w), 1).gflops_published for w in (8, 6, 4)]
    wanted = [cost**2 / sum(c**2 for c in costs) for cost in costs]
    assert stage.probabilities.tolist() == pytest.approx(wanted)
    batch = TrainBatch(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32))
    j = stage.drawn_class()
    assert j == stage.drawn_class()
    loss, _ = stage.losses(batch)
    expected = (model.run_class(j, batch.lr_B3hw) - batch.hr_B3HW).abs().mean()
    assert loss.item() == pytest.approx(expected.item())


def test_the_patches_of_arms_table() -> None:
    model = small_patch_routed("arm")
    lr, hr = torch.rand(1, 3, 40, 65), torch.rand(1, 3, 160, 260)
    edges, psnrs = made(ARMStage, model).measure_patches(lr, hr)
    assert (edges.shape, psnrs.shape) == ((2,), (2, 4))
    assert edges[1] == edge_score(lr[..., :32, 28:60])[0]
    with torch.no_grad():
        narrow = model.run_class(2, lr[..., :32, 28:60])
    assert psnrs[1, 2].item() == pytest.approx(psnr(narrow, hr[..., :128, 112:240], 4), abs=1e-4)


@pytest.mark.parametrize("size", [(20, 41), (32, 60)])
def test_pictures_of_any_size_are_padded(size: tuple[int, int]) -> None:
    model = small_patch_routed("classsr")
    lr = torch.rand(1, 3, *size)
    result = upscale_padded(model, lr, RoutingConfig(fixed_class=1))
    assert result.image.shape == (1, 3, 4 * size[0], 4 * size[1])
    torch.testing.assert_close(
        result.image[..., :40, :40],
        model.run_class(1, lr)[..., :40, :40].clamp(0, 1),
        atol=1e-6,
        rtol=0,
    )


def test_what_patches_cannot_do_is_refused(tmp_path: Path) -> None:
    model = small_patch_routed("classsr")
    folder = write_textures(tmp_path, {"a.png": (128, 128)})
    for more, reason in (
        ({"protocol": "whole"}, "use protocol=overlapped"),
        ({"routing": RoutingConfig(budget=0.5)}, "patches by k or fixed_class"),
        ({"routing": RoutingConfig(fixed_class=3)}, r"classes 0 .* to 2"),
        ({"scale": 2}, "made for scale 4"),
    ):
        with pytest.raises(ConfigError, match=reason):
            benchmark(model, folder, **{"protocol": "overlapped", **more})


Run = Callable[..., Any]
SMALL = {
    "fsrcnn": ("backbone=fsrcnn", "backbone.args={d:8,s:4,m:1}"),
    "carn": ("backbone=carn", "backbone.args={nf:8,group:2}"),
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run(command, *settings, code=0)``, with a cache of its own."""
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    return partial(run_command, cwd=tmp_path, env=env, code=0)


@pytest.fixture
def settings(tmp_path: Path) -> tuple[str, ...]:
    """Of a training of two steps."""
    root = write_textures(tmp_path / "pictures", {f"{n}.png": (192, 224) for n in "abc"})
    return (
        "trainer.accelerator=cpu", "threads=1", "data=folder", f"data.root={root}",
        "data.val_count=1", "callbacks.progress=null", "logger=none", "backbone.widths=[8,6,4]",
        "trainer.max_steps=2", "data.batch_size=4",
    )  # fmt: skip


def swept(run: Run, folder: Path) -> list[dict[str, Any]]:
    """Evaluates ``mine`` once and in a sweep; returns the points of the sweep."""
    words = ("model=mine", "data.root=pictures", "protocol=overlapped")
    run("evaluate", *words, "hydra.run.dir=one")
    run("evaluate", *words, "sweep=k", "sweep_values=[-1,0,9]", "hydra.run.dir=many")
    one = json.loads((folder / "one" / "metrics.json").read_text())
    points: list[dict[str, Any]] = json.loads((folder / "many" / "sweep.json").read_text())[
        "points"
    ]
    assert points[1]["psnr"] == pytest.approx(one["psnr"], abs=1e-6)
    assert points[1]["share"] == one["share"]
    assert points[2]["gmacs"] <= points[1]["gmacs"] <= points[0]["gmacs"]
    return points


def test_classsr_from_pictures_to_a_table(
    run: Run, settings: tuple[str, ...], tmp_path: Path
) -> None:
    both = ("experiment=paper/fsrcnn_classsr_x4", "hydra.run.dir=mine")
    run("train", *both, *settings, *SMALL["fsrcnn"])
    before = tmp_path / "mine" / "stage-classsr_branches"
    measured = json.loads((tmp_path / "mine" / "metrics.json").read_text())
    assert (measured["protocol"], len(measured["share"])) == ("overlapped", 3)
    state = [load(folder, patch_routed=True).state_dict() for folder in (before, tmp_path / "mine")]
    same = {key for key, value in state[0].items() if torch.equal(value, state[1][key])}
    assert {key.partition(".")[0] for key in state[0].keys() - same} == {"classifier"}
    record = json.loads((tmp_path / "mine" / "run.json").read_text())
    assert record["complete"]
    whole = run("evaluate", "model=mine", "data.root=pictures", code=1)
    assert "use protocol=overlapped" in whole.err
    assert len(swept(run, tmp_path)[0]["share"]) == 3
    refused = run("upscale", "pictures/a.png", "out.png", "--model", "mine", code=1)
    assert refused.err.count("\n") == 1
    assert "is a ClassSR model" in refused.err


def test_arm_from_pictures_to_a_table(run: Run, settings: tuple[str, ...], tmp_path: Path) -> None:
    run("train", "stage=arm", "hydra.run.dir=mine", *settings, *SMALL["carn"])
    model = load(tmp_path / "mine", patch_routed=True)
    assert isinstance(model, ARM)
    assert model.psnr_KM.min() > 5
    [_, _, last] = swept(run, tmp_path)
    assert last["share"] == [0, 0, 0, 1]  # nine dB for the widest: nobody pays that
    assert last["gmacs"] == 0

"""The scripts that made released models: they draw the right pixels, and run."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tests.commands import run_script

from pcsr_lightning.data import SAMPLE_FOLDER, SRDataModule
from pcsr_lightning.networks import PCSR, build_network, default_config
from pcsr_lightning.weights import load, save

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PHOTOGRAPHS = ["--train", str(SAMPLE_FOLDER / "train"), "--valid", str(SAMPLE_FOLDER / "valid")]


@pytest.fixture(
    scope="module",
    params=[
        *("later_stages", "longer_first_stage", "_drawn_pixels", "queries", "int8_upsamplers"),
        "mean_model",
    ],
)
def module(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module(request.param)


@pytest.fixture(scope="module")
def stage1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = build_network(default_config("fsrcnn", num_classes=1))
    return save(network, tmp_path_factory.mktemp("one") / "one")


@pytest.mark.parametrize("module", ["_drawn_pixels"], indirect=True)
@pytest.mark.parametrize("scale", [4.0, 2.7])
def test_drawn_pixels_are_those_of_the_whole_picture(module: ModuleType, scale: float) -> None:
    """Every drawn pixel's residual and right residual is somewhere in the picture's, exactly."""
    network = build_network(default_config("fsrcnn", num_classes=1)).eval()
    assert isinstance(network, PCSR)
    data = SRDataModule(SAMPLE_FOLDER / "train", SAMPLE_FOLDER / "valid", scale=scale)
    data.prepare_data()
    data.setup()
    raw = module.crops_of(data, 2, 0)[0]
    draws = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        lr_B3hw, where, aim, hr = module.draw(data, raw, 3, draws)
        feat_BDhw = network.features(lr_B3hw)
        drawn = module.query(
            network.upsampler(0), feat_BDhw.permute(0, 2, 3, 1).flatten(1, 2), where
        )
        batch = data.pairs.train_batch(raw)
        size = (batch.hr_B3HW.shape[-2], batch.hr_B3HW.shape[-1])
        grid = network.grid((32, 32), size)
        whole = network.residual(feat_BDhw, grid, 0)
        out = network(lr_B3hw, size)
        right = batch.hr_B3HW - out.base_B3Q.reshape(batch.hr_B3HW.shape)
    for b, p, n in ((0, 0, 0), (0, 517, 2), (1, 1023, 1), (1, 40, 0)):
        row, column = p // 32, p % 32
        dy, dx = where[b, p, n, :2]
        [i] = ((grid.rows_H == row) & ((grid.dy_H - dy).abs() < 1e-6)).nonzero().flatten()
        [j] = ((grid.cols_W == column) & ((grid.dx_W - dx).abs() < 1e-6)).nonzero().flatten()
        assert torch.allclose(drawn[b, p, n], whole[b, :, i, j], atol=1e-5)
        torch.testing.assert_close(aim[b, p, n], right[b, :, i, j], atol=1e-5, rtol=0)
        assert torch.equal(hr[b, p, n], batch.hr_B3HW[b, :, i, j])


@pytest.mark.parametrize("module", ["_drawn_pixels"], indirect=True)
def test_flat_pixels_are_those_without_detail_around_them(module: ModuleType) -> None:
    hr_1hwn3 = torch.full((1, 32, 32, 2, 3), 0.5)
    hr_1hwn3[:, :, 20:] = 0.6  # an edge
    hr_1hwn3 += 1e-3 * torch.rand(hr_1hwn3.shape, generator=torch.Generator().manual_seed(0))
    flat_hw = module.flat_pixels(hr_1hwn3.flatten(1, 2)).reshape(32, 32)
    assert not flat_hw[:, 19:21].any()
    assert flat_hw[:, :19].all()
    assert flat_hw[:, 21:].all()


@pytest.mark.parametrize("module", ["longer_first_stage"], indirect=True)
def test_a_first_stage_goes_on(
    module: ModuleType, stage1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_script(
        module, monkeypatch, "--init", stage1, *PHOTOGRAPHS, "--out", tmp_path / "two",
        "--seconds", 1, "--batch", 2, "--surveyed", 4, "--synthetic", 10,
    )  # fmt: skip
    before, after = load(stage1).state_dict(), load(tmp_path / "two.safetensors").state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert {"backbone.head.0.weight", "upsamplers.0.project.weight"} <= changed


@pytest.mark.parametrize("module", ["later_stages"], indirect=True)
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--num_classes", 3, "--loss", "mixed"],
        ["--num_classes", 3, "--upsamplers", "[[58,58,58,58],[4],[]]"],
    ],
    ids=str,
)
def test_later_stages_leave_the_first_as_it_is(
    module: ModuleType,
    stage1: Path,
    words: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_script(
        module, monkeypatch, "--stage1", stage1, *PHOTOGRAPHS, "--out", tmp_path / "two",
        "--crops", 32, "--steps", 3, "--look", 3, *words,
    )  # fmt: skip
    model = load(tmp_path / "two.safetensors")
    assert isinstance(model, PCSR)
    assert model.num_classes == (3 if words and words[0] == "--num_classes" else 2)
    before, after = load(stage1).state_dict(), model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert "class 0 alone" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["later_stages"], indirect=True)
def test_later_stages_of_a_model_whose_strength_can_be_set(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = build_network({**default_config("fsrcnn", num_classes=1), "denoise": True})
    for name, parameter in network.named_parameters():
        if name.endswith("bias_shift"):
            torch.nn.init.normal_(parameter, std=0.1)
    stage1 = save(network, tmp_path / "one")
    run_script(
        module, monkeypatch, "--stage1", stage1, *PHOTOGRAPHS, "--out", tmp_path / "two",
        "--crops", 64, "--steps", 6, "--look", 6, "--photo", "--full_strength", 0.3,
    )  # fmt: skip
    model = load(tmp_path / "two.safetensors")
    before, after = load(stage1).state_dict(), model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    # Only where the strength is below 1 is there anything for a shift to learn.
    assert after["upsamplers.1.project.bias_shift"].abs().max() > 0
    assert load(tmp_path / "two.safetensors", denoise=0.5).num_classes == 2


@pytest.mark.parametrize("module", ["int8_upsamplers"], indirect=True)
def test_an_upsampler_in_int8_is_nearly_the_same(module: ModuleType) -> None:
    torch.manual_seed(0)
    model = build_network(default_config("fsrcnn", num_classes=1)).eval()
    assert isinstance(model, PCSR)
    grid = model.grid((8, 8), (32, 32))
    kernel = module.QueryKernels.of(model, grid, torch.float32).upsampler(0)
    first_KC = torch.randn(512, 58)
    with torch.inference_mode():
        found, expected = module.Int8Tail(kernel, first_KC)(first_KC), kernel.finish(first_KC)
    assert 0 < (found - expected).abs().max() < 0.02 * (expected.amax() - expected.amin())


@pytest.mark.parametrize("module", ["later_stages"], indirect=True)
def test_k_gives_the_shares_asked_for(module: ModuleType) -> None:
    """At k = 0 and k = 1 with proportional cost, on the pictures that it was set by."""
    torch.manual_seed(1)
    network = build_network(default_config("fsrcnn", num_classes=2)).eval()
    assert isinstance(network, PCSR)
    data = SRDataModule(SAMPLE_FOLDER / "train", SAMPLE_FOLDER / "valid")
    data.prepare_data()
    data.setup()
    pictures = module.pictures_of(network, data)
    module.calibrate(network, pictures, 0.45, 0.1)
    assert module.offset_for(network, pictures, 0.45) == pytest.approx(0, abs=1e-4)
    costs = module.class_costs(
        module.model_macs(network).plain.branches(4), module.CostRule.PROPORTIONAL
    )
    wanted = float((costs[0] / costs[1]).log())
    assert module.offset_for(network, pictures, 0.1) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("module", ["queries"], indirect=True)
def test_both_ways_of_drawing_pixels_are_compared(
    module: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "queries.json"
    run_script(module, monkeypatch, "--quick", "--recipes", "fsrcnn-pcsr-x4", "--out", out)
    runs = json.loads(out.read_text())
    assert {run["queries"] for run in runs} == {"2048", "per_pixel:2"}
    assert all(run["psnr"] > 20 and run["seconds"] > 0 for run in runs)
    assert "| fsrcnn-pcsr-x4 | per_pixel:2 | 4 |" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["mean_model"], indirect=True)
def test_the_mean_of_two_models(module: ModuleType, stage1: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = build_network(default_config("fsrcnn", num_classes=1))
    named = save(other, tmp_path / "other")
    module.main([str(stage1), str(named), "--share", "0.75", "--out", str(tmp_path / "mean")])
    one, mean = load(stage1).state_dict(), load(tmp_path / "mean.safetensors").state_dict()
    for name, weight in other.state_dict().items():
        torch.testing.assert_close(mean[name], 0.25 * one[name] + 0.75 * weight)

"""What was tried for a cheaper backbone: the parts do what they are measured as."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from tests.commands import run_command, run_script

from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.images import read_rgb8
from pcsr_lightning.inference.flops import model_macs
from pcsr_lightning.networks import PCSR, build_network, default_config
from pcsr_lightning.networks.backbones import BACKBONES
from pcsr_lightning.networks.backbones.carn import CARN

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def floor() -> Iterator[ModuleType]:
    known = dict(BACKBONES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("floor")
    BACKBONES.clear()
    BACKBONES.update(known)


@pytest.mark.parametrize("name", ["FoldedFSRCNN", "FoldedCARN"])
def test_folded_features_of_an_odd_picture(floor: ModuleType, name: str) -> None:
    backbone = getattr(floor, name)().eval()
    x = torch.rand(1, 3, 9, 7)
    even = torch.nn.functional.pad(x, (0, 1, 0, 1), mode="replicate")
    assert backbone(x).shape[2:] == (9, 7)
    torch.testing.assert_close(backbone(x), backbone(even)[..., :9, :7])


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_macs_of_an_early_class(floor: ModuleType, blocks: int) -> None:
    network = build_network(default_config("carn", num_classes=2)).eval()
    assert isinstance(network, PCSR)
    backbone = network.backbone
    assert isinstance(backbone, CARN)
    cost, all_hw = floor.EarlyMacs(backbone, blocks), torch.ones(40, 40)
    whole = model_macs(network).plain.backbone
    assert cost.early + cost.deep(all_hw) / all_hw.numel() == pytest.approx(whole)
    assert cost.deep(torch.zeros(40, 40)) == 0
    x = torch.rand(1, 3, 40, 40)
    early, deep = floor.early_and_deep(backbone, x, blocks)
    if blocks < 3:  # a pixel needs all others within the halo, most of them in the first layers
        one_hw = torch.zeros(40, 40)
        one_hw[20, 20] = 1
        grad_BDhw = torch.autograd.grad(deep[0, :, 20, 20].sum(), early)[0]
        reach = int((grad_BDhw.abs().amax((0, 1)) > 0).sum())
        assert 0.15 * reach < cost.deep(one_hw) / (whole - cost.early) < 0.5 * reach
    torch.testing.assert_close(deep, backbone(x))
    assert torch.equal(early, deep) == (blocks == 3)


def test_the_script_runs(
    floor: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    variants = {"plain": (CARN, {"nf": 16}), "wide": (CARN, {"nf": 16})}
    monkeypatch.setitem(floor.VARIANTS, "carn", variants)
    monkeypatch.setattr(floor, "VALUES", [-1.0, 0.0])
    pictures = tmp_path / "Set1"
    pictures.mkdir()
    hr_3HW = read_rgb8(next((SAMPLE_FOLDER / "valid").iterdir()))[:, :144, :144]
    Image.fromarray(hr_3HW.permute(1, 2, 0).numpy()).save(pictures / "one.png")

    def run(command: str, *settings: str) -> None:
        done = run_command(
            command, *settings, "data.lr_crop=8",
            "data.downscale_factors=[1.0]", cwd=BENCHMARKS,
        )  # fmt: skip
        assert done.code == 0, done.err

    monkeypatch.setattr(floor.rivals, "run", run)
    words: list[Any] = [
        "--train", SAMPLE_FOLDER / "train", "--valid", SAMPLE_FOLDER / "valid",
        "--test", pictures, "--out", tmp_path, "--size", "carn",
        "--steps", 1, 2, "--crops", 16, "--only", "plain", "wide", "early-1",
    ]  # fmt: skip
    run_script(floor, monkeypatch, *words)
    said = capsys.readouterr().out
    assert "| Set1 | plain |" in said
    assert "| Set1 | wide |" in said
    assert said.count("| Set1 | early-1, tiles of") == len(floor.TILES)

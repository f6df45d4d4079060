"""``python -m pcsr_lightning.demo``."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from pcsr_lightning.cli import demo
from pcsr_lightning.networks import build_network, default_config
from pcsr_lightning.weights import save


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    return save(build_network(default_config("fsrcnn", 2)), folder / "small")


def test_the_shipped_photograph_in_five_ways(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    assert demo.main(["--model", str(model_file), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    lines = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    rows = {cells[0]: cells for cells in lines if len(cells) == 7}
    assert list(rows) == ["bicubic", "all light", "k = 0", "adaptive", "all heavy"]
    assert rows["all heavy"][3] == "100 %"
    assert rows["all light"][3] == "8 %"
    # The published count: twice the un-hoisted multiply-adds of 150 x 100 LR pixels.
    assert float(rows["all heavy"][4]) == pytest.approx(
        2 * 15_000 * (9_996 + 16 * 13_282) / 1e9, 1e-3
    )
    assert rows["all heavy"][5] == "100.0 / 0.0 %"
    assert abs(float(rows["bicubic"][1]) - 25.80) < 0.01  # the coffee cup
    names = {
        *("original", "input", "bicubic", "all_light", "k0", "adaptive", "all_heavy"),
        *("class_map", "side_by_side"),
    }
    assert {path.stem for path in out.iterdir()} == names
    assert {line for line in text.splitlines() if line.endswith(".png")} == {
        str(out / f"{name}.png") for name in names
    }
    sizes = {}
    for path in out.iterdir():
        with Image.open(path) as file:
            sizes[path.stem] = file.size
    assert sizes.pop("side_by_side")[0] > 1500
    assert sizes.pop("input") == (150, 100)
    assert set(sizes.values()) == {(600, 400)}

"""``python -m pcsr_lightning.figures``; mistakes in what ``demo`` takes too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from pcsr_lightning.cli import demo, figures
from pcsr_lightning.evaluation import Measurement, picture_figures
from pcsr_lightning.networks import build_network, default_config
from pcsr_lightning.weights import save


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    return save(build_network(default_config("fsrcnn", 3)), folder / "small")


def test_all_figures_of_a_picture(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (9, 13, 3), generator=draw, dtype=torch.uint8).numpy()
    picture = tmp_path / "little.png"
    Image.fromarray(coarse).resize((130, 90), Image.Resampling.BICUBIC).save(picture)
    out = tmp_path / "new" / "out"
    words = ["--picture", str(picture), "--model", str(model_file), "--out", str(out)]
    assert figures.main([*words, "--oracle"]) == 0

    names = ["psnr_flops", "difficulty", "refinement", "class_map", "regret"]
    assert capsys.readouterr().out.split() == [str(out / f"{name}.png") for name in names]
    sizes = {}
    for path in out.iterdir():
        with Image.open(path) as file:
            sizes[path.stem] = file.size
    assert set(sizes) == set(names)
    assert sizes["psnr_flops"] == (1770, 660)
    assert sizes["difficulty"] == (960, 600)
    assert sizes["refinement"][0] == 4 * 510
    assert sizes["class_map"][0] == sizes["regret"][0] == 2 * 510


def test_the_shipped_photograph_and_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing need be given; the sweep goes from cheap to dear."""
    monkeypatch.chdir(tmp_path)
    seen = {}
    plot = picture_figures.psnr_flops

    def look(points: list[Measurement], *others: object, **named: object) -> object:
        seen["points"] = points
        return plot(points, *others, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(picture_figures, "psnr_flops", look)
    assert figures.main([]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert (tmp_path / "figures" / "difficulty.png").is_file()
    costs = [point.gflops_published for point in seen["points"]]
    assert costs == sorted(costs, reverse=True)  # k rises
    assert seen["points"][3].routing_name == "k = 0"
    assert seen["points"][0].psnr > seen["points"][-1].psnr + 0.02


@pytest.mark.parametrize("command", [demo.main, figures.main])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--picture", "nowhere.png"], "nowhere.png: no such file"),
        (["--picture", "tiny.png"], "tiny.png: 5 x 5 pixels are too few"),
        (["--model", "nobody"], "no model is called 'nobody'"),
        (["--model", "original.safetensors"], "original model"),
        (["--out", "tiny.png"], "--out tiny.png: cannot make this folder"),
    ],
)
def test_mistakes(
    model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: Callable[[list[str]], int],
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (5, 5)).save("tiny.png")
    save(build_network(default_config("fsrcnn", original=True)), "original")
    assert command(["--model", str(model_file), *arguments]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line

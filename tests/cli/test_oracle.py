"""``python -m pcsr_lightning.evaluate oracle=true``: whole commands."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.commands import Done, run_command
from tests.small import small_original, write_textures

from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.weights import save


def evaluate(*settings: str, cwd: Path, code: int = 0) -> Done:
    return run_command("evaluate", *settings, "threads=1", cwd=cwd, code=code)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of a photograph, a picture in a sub-folder, and one that is broken."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "broken.png").write_bytes(b"no picture")
    write_textures(folder, {"sub/b.png": (80, 64)})
    with Image.open(SAMPLE_FOLDER / "valid" / "chelsea.png") as photograph:
        photograph.crop((100, 60, 228, 156)).save(folder / "a.png")
    return folder


def test_one_routing_its_bound_and_its_regret(root: Path, tmp_path: Path) -> None:
    words = ("model=fsrcnn-pcsr-x4", f"data.root={root}", "oracle=true", "hydra.run.dir=run")
    done = evaluate(*words, "routing.k=0.3", "save_images=true", cwd=tmp_path)
    content = json.loads((tmp_path / "run/metrics.json").read_text())
    same, best = content["oracle_points"]
    [own] = content["unrefined"]
    assert (same["oracle"], best["oracle"], own["oracle"]) == ("same", "any", None)
    assert content["routing"]["refine"] is True
    assert own["routing"]["refine"] is same["routing"]["refine"] is False
    assert done.err.count("broken.png is left out") == 1
    assert own["psnr"] < same["psnr"] <= best["psnr"]
    assert same["gflops_published"] <= own["gflops_published"] * (1 + 1e-12)
    assert own["gflops_published"] == pytest.approx(content["gflops_published"], rel=1e-12)
    named = ("(k = 0.3) ", "(k = 0.3), without refinement", "oracle at the cost of k = 0.3")
    lines = [next(line for line in done.out.splitlines() if name in line) for name in named]
    lines.append(next(line for line in done.out.splitlines() if "oracle at any cost" in line))
    for line, point in zip(lines, (content, own, same, best), strict=True):
        assert f" {point['psnr']:.2f} " in line
        assert f" {point['gflops_published']:.3f} " in line
    for name in ("a", "sub/b"):
        with Image.open(tmp_path / f"run/pictures/{name}.regret.png") as shown:
            pixels = np.asarray(shown).astype(int)
        with Image.open(tmp_path / f"run/pictures/{name}.png") as upscaled:
            assert shown.size == upscaled.size
        redder = pixels[..., 0] - pixels[..., 2]
        assert redder.max() > 20
        assert redder.min() < -20
    evaluate(*words[:2], "routing.k=0.3", "hydra.run.dir=plain", cwd=tmp_path)
    plain = json.loads((tmp_path / "plain/metrics.json").read_text())
    assert "oracle_points" not in plain
    for key in ("psnr", "ssim", "gmacs", "share"):
        assert plain[key] == content[key]


def test_a_sweep_of_several_models(root: Path, tmp_path: Path) -> None:
    """Every model gets its oracle's curve, and its distance in BD-rate; an original has none."""
    save(small_original(), tmp_path / "original")
    done = evaluate(
        "model=[fsrcnn-pcsr-x4,original.safetensors]", f"data.root={root}", "oracle=true",
        "sweep=k", "sweep_values=[-0.5,0,0.5,1]", "hydra.run.dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert "one class only: an oracle has no choice" in done.err
    content = json.loads((tmp_path / "run/0/sweep.json").read_text())
    assert len(content["points"]) == len(content["unrefined"]) == 4
    assert [p["oracle"] for p in content["oracle_points"]] == [*["same"] * 4, "any"]
    with (tmp_path / "run/table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["routing"] for row in rows] == [
        "", "k = -0.5", "k = 0", "k = 0.5", "k = 1",
        "oracle at the cost of k = -0.5", "oracle at the cost of k = 0",
        "oracle at the cost of k = 0.5", "oracle at the cost of k = 1", "oracle at any cost",
        "original",
    ]  # fmt: skip
    with (tmp_path / "run/bd.csv").open() as file:
        [bound] = csv.DictReader(file)
    assert (bound["model"], bound["against"]) == ("fsrcnn-pcsr-x4, oracle", "fsrcnn-pcsr-x4")
    assert float(bound["bd_psnr"]) > 0.1
    assert (tmp_path / "run/psnr_flops.pdf").is_file()


@pytest.mark.parametrize("protocol", ["overlapped", "patches"])
def test_patches_have_no_oracle(protocol: str, root: Path, tmp_path: Path) -> None:
    done = evaluate(
        f"data.root={root}", "oracle=true", f"protocol={protocol}", cwd=tmp_path, code=1
    )
    [line] = done.err.splitlines()
    assert line.startswith("error: oracle=true chooses among the classes of full images")
    assert line.endswith(f"use protocol=whole or published, not {protocol}")

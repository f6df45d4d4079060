"""``python -m pcsr_lightning.evaluate``: whole commands, and every way to get one wrong."""

import json
import os
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.commands import run_command
from tests.small import small_original, small_pcsr, write_textures

from pcsr_lightning.cli import evaluate
from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation import Measurement
from pcsr_lightning.evaluation.prepared import model_name, published_for
from pcsr_lightning.evaluation.saved_pictures import picture_file
from pcsr_lightning.inference import all_heavy_flops
from pcsr_lightning.networks import PCSR, build_network, default_config
from pcsr_lightning.weights import DEFAULT_MODEL, load, save

Run = Callable[..., str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``m2`` and ``original``: models; ``set``: three pictures, one of them broken."""
    root = tmp_path_factory.mktemp("files")
    save(small_pcsr(), root / "m2")
    save(small_original(), root / "original")
    write_textures(root / "set", {"b.png": (70, 50), "sub/a.jpg": (48, 80)})
    (root / "set" / "broken.png").write_bytes(b"\x89PNG\r\n")
    return root


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in an empty folder: what it wrote to stdout, or where it fails to stderr."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*settings: str, code: int = 0) -> str:
        done = run_command("evaluate", *settings, cwd=tmp_path, code=code)
        return done.err if code else done.out

    return call


def only(folder: Path, pattern: str) -> Path:
    [path] = folder.glob(pattern)
    return path


def test_word_for_word_from_another_folder(files: Path, tmp_path: Path) -> None:
    away = tmp_path / "some where"
    away.mkdir()
    relative = os.path.relpath(files, away)
    words = (f"model={relative}/m2.safetensors", f"data.root={relative}/set", "scale=4")
    done = run_command(
        "evaluate", *words, "routing.mode=k", "routing.k=0", "threads=1", cwd=away, code=0
    )
    run_dir = only(away, "outputs/evaluate/m2/*")
    assert {p.name for p in run_dir.iterdir()} == {
        *(".hydra", "evaluate.log", "metrics.json", "table.csv", "table.tex")
    }
    content = json.loads((run_dir / "metrics.json").read_text())
    assert [i["name"] for i in content["images"]] == ["b.png", "sub/a.jpg"]
    assert [s["name"] for s in content["skipped"]] == ["broken.png"]
    for part in (content, *content["images"]):
        assert {"psnr", "gmacs", "gflops_published", "share", "seconds", "bicubic"} <= set(part)
        assert {"psnr_y", "ssim", "ssim_y"} <= set(part)
        assert set(part["bicubic"]) == {"psnr", "psnr_y", "ssim", "ssim_y"}
        assert len(part["share"]) == 2
        assert sum(part["share"]) == pytest.approx(1)
    known = {"mode": "k", "k": 0.0, "cost": "softmax", "refine": True, "budget": None}
    assert known.items() <= content["routing"].items()
    assert (content["scale"], content["protocol"], content["threads"]) == (4, "whole", 1)
    bicubic, ours = (line.strip() for line in done.out.splitlines()[2:4])
    assert re.split(r"  +", bicubic)[:2] == ["bicubic", f"{content['bicubic']['psnr']:.2f}"]
    assert re.split(r"  +", ours)[:2] == ["m2 (k = 0)", f"{content['psnr']:.2f}"]
    assert done.out.splitlines()[-1] == str(run_dir / "metrics.json")
    # the broken picture: a warning that names it, and nothing else, apart from the table
    assert "broken.png" in done.err
    assert "Traceback" not in done.err
    assert "WARNING" not in done.out


OWN = """
def largest(sr, hr):
    assert sr.shape == hr.shape and sr.shape[:2] == (1, 3)
    return (sr - hr).abs().max()

def two_numbers(sr, hr):
    return 1, 2
"""


def test_metrics_of_ones_own(run: Run, files: Path, tmp_path: Path) -> None:
    """A class of torchmetrics and a function, against numpy on the pictures that were written."""
    (tmp_path / "own.py").write_text(OWN)
    out = run(
        f"model={files}/m2.safetensors", f"data.root={files}/set", "hydra.run.dir=run",
        "save_images=true", "+metrics.mae._target_=torchmetrics.MeanAbsoluteError",
        "+metrics.largest._target_=own.largest", "+metrics.largest._partial_=true",
        "+metrics.off=null",
    )  # fmt: skip
    content = json.loads((tmp_path / "run/metrics.json").read_text())
    for image in content["images"]:
        with Image.open(files / "set" / image["name"]) as hr:
            height, width = image["size"]
            expected = np.asarray(hr.convert("RGB"))[:height, :width].astype(float)
        with Image.open(picture_file(image["name"], tmp_path / "run/pictures")) as sr:
            error = np.abs(np.asarray(sr).astype(float) - expected)[4:-4, 4:-4] / 255
        assert image["metrics"].keys() == {"mae", "largest"}
        assert image["metrics"]["mae"] == pytest.approx(error.mean(), rel=1e-5)
        assert image["metrics"]["largest"] == pytest.approx(error.max(), rel=1e-5)
        assert image["bicubic"]["metrics"]["mae"] != image["metrics"]["mae"]
    means = [content["metrics"], content["bicubic"]["metrics"]]
    parts = [[image["metrics"] for image in content["images"]]]
    parts += [[image["bicubic"]["metrics"] for image in content["images"]]]
    for mean, images in zip(means, parts, strict=True):
        for name in ("mae", "largest"):
            assert mean[name] == pytest.approx(np.mean([i[name] for i in images]))
    heading, bicubic, ours = out.splitlines()[1:4]
    assert re.split(r"  +", heading.strip())[-2:] == ["mae", "largest"]
    for line, mean in ((bicubic, means[1]), (ours, means[0])):
        assert re.split(r"  +", line.strip())[-2:] == [f"{v:.4f}" for v in mean.values()]
    read_back = Measurement.from_json(content)
    assert read_back.metrics == content["metrics"]
    assert read_back.bicubic.metrics == content["bicubic"]["metrics"]
    flat = read_back.flat()
    assert flat["metrics/mae"] == content["metrics"]["mae"]
    assert flat["bicubic/metrics/mae"] == content["bicubic"]["metrics"]["mae"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["+metrics.x._target_=no.such.Metric"], "metrics.x._target_=no.such.Metric: "),
        (["+metrics.x=4"], "metrics.x=4: write metrics.x._target_="),
        (
            ["+metrics.x._target_=torchmetrics.MeanAbsoluteError", "+metrics.x.nonsense=1"],
            "metrics.x",
        ),
        (
            ["+metrics.x._target_=own.two_numbers", "+metrics.x._partial_=true"],
            "metrics.x fails on pictures of ",
        ),
        (
            ["+metrics.x._target_=torchmetrics.MeanAbsoluteError", "sweep=k"],
            "leave metrics out",
        ),
    ],
)
def test_metrics_that_cannot_be_used(
    settings: list[str], said: str, run: Run, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    error = run(f"model={files}/m2.safetensors", f"data.root={files}/set", *settings, code=1)
    [line] = [line for line in error.splitlines() if not line.startswith("WARNING")]
    assert line.startswith("error: ")
    assert said in line


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    done = run_command("evaluate", "routing.kk=1", cwd=tmp_path, code=1)
    assert done.err == "error: routing.kk: there is no such setting; did you mean routing.k?\n"
    assert not done.out


@pytest.mark.parametrize(
    ("asked_by", "setting"), [("environment", "debug=false"), ("", "debug=true")]
)
def test_the_trace_can_be_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, asked_by: str, setting: str
) -> None:
    if asked_by:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["evaluate", "data.root=/nowhere", setting])
    with pytest.raises(ConfigError, match=r"data\.root=/nowhere"):
        evaluate.main()
    assert os.environ.get("HYDRA_FULL_ERROR") == ("1" if asked_by else None)


def test_pictures_are_written(run: Run, files: Path, tmp_path: Path) -> None:
    model, data = f"model={files}/m2.safetensors", f"data.root={files}/set"
    run(model, data, "save_images=true", "routing.mode=adaptive", "output=here", "per_image=true")
    run_dir = only(tmp_path, "here/evaluate/m2/*")
    sizes = {}
    for path in run_dir.glob("pictures/**/*.png"):
        with Image.open(path) as file:
            sizes[path.relative_to(run_dir / "pictures").as_posix()] = file.size
    assert sizes == {
        "b.png": (48, 68),
        "b.classes.png": (48, 68),
        "sub/a.jpg.png": (80, 48),
        "sub/a.jpg.classes.png": (80, 48),
    }


def test_every_mode_and_an_original(run: Run, files: Path, tmp_path: Path) -> None:
    data = f"data.root={files}/set"
    shares = {}
    for mode, said in {
        "0": "class 0 alone", "fixed_class": "class 1 alone", "adaptive": "adaptive"
    }.items():  # fmt: skip
        value = ["routing.fixed_class=1"] if mode == "fixed_class" else []
        model = f"model={files}/m2.safetensors"
        assert said in run(model, data, f"routing.mode={mode}", *value, f"output={mode}")
        metrics = only(tmp_path, f"{mode}/evaluate/m2/*/metrics.json")
        shares[mode] = json.loads(metrics.read_text())["share"]
    assert shares["0"] == [1.0, 0.0]
    assert shares["fixed_class"] == [0.0, 1.0]
    assert 0 < shares["adaptive"][0] < 1
    out = run(f"model={files}/original.safetensors", data, "output=o", "protocol=whole")
    assert "original (original)" in out
    content = json.loads(only(tmp_path, "o/evaluate/original/*/metrics.json").read_text())
    assert content["share"] == [1.0]
    assert content["routing"] is None


def test_scale_for_height_and_width_and_a_folder_with_odd_characters(
    run: Run, files: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "it's (1,2) = {x}"
    odd.symlink_to(files / "set")
    run(f"model={files}/m2.safetensors", f"data.root={odd}", "scale=[4,3.7]", "output=out")
    content = json.loads(only(tmp_path, "out/**/metrics.json").read_text())
    assert content["scale"] == [4, 3.7]
    assert [i["size"] for i in content["images"]] == [[68, 48], [48, 78]]


def test_a_target(run: Run, files: Path, tmp_path: Path) -> None:
    sound = (f"model={files}/m2.safetensors", f"data.root={files}/set")

    def go(output: str, *settings: str) -> tuple[str, dict[str, Any]]:
        out = run(*sound, f"output={output}", *settings)
        return out, json.loads(only(tmp_path, f"{output}/**/metrics.json").read_text())

    heavy, light = (go(j, f"routing.fixed_class={j}")[1]["psnr"] for j in ("0", "1"))
    target = (heavy + light) / 2
    out, found = go("t", f"target_psnr={target}")
    assert found["target_psnr"] == target
    assert found["routing"]["k"] == found["k"]
    assert f"m2 (k = {found['k']:g} " in out
    ordinary = go("k", f"routing.k={found['k']}")[1]
    assert ordinary["psnr"] == pytest.approx(found["psnr"], abs=1e-6)
    assert (ordinary["target_psnr"], ordinary["k"]) == (None, found["k"])
    out, found = go("far", "target_psnr=90")
    assert "nearest to 90 dB)" in out
    assert found["psnr"] == pytest.approx(max(heavy, light), abs=1e-3)


def test_patches(run: Run, files: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    Image.new("RGB", (140, 130), (40, 90, 10)).save(tmp_path / "set" / "x.png")
    sound = (f"model={files}/m2.safetensors", f"data.root={tmp_path}/set", "scale=1", "output=o")
    out = run(*sound, "protocol=patches", "patch_size=64")
    assert "protocol patches of 64, one every 64" in " ".join(out.split())  # a long title wraps
    content = json.loads(only(tmp_path, "o/**/metrics.json").read_text())
    assert (content["protocol"], content["patch_size"]) == ("patches", 64)
    assert content["images"][0]["size"] == [128, 128]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("protocol=patches", "patch_size=48"), "patch_size=48: must be 16, 32, 64 or 128"),
        (("protocol=overlapped", "scale=2.5"), "protocol=overlapped needs an integer scale"),
        (("target_psnr=26", "routing.mode=adaptive"), "routing.mode must be k, not adaptive"),
        (("target_psnr=26", "routing.k=1"), "target_psnr=26 and routing.k=1 exclude each other"),
        (("target_psnr=26", "model=ORIGINAL"), "target_psnr=26: this model has one class only"),
    ],
)
def test_settings_that_do_not_go_together(
    run: Run, files: Path, settings: tuple[str, ...], says: str
) -> None:
    original = str(files / "original.safetensors")
    sound = [f"model={files}/m2.safetensors", f"data.root={files}/set"]
    error = run(*sound, *(s.replace("ORIGINAL", original) for s in settings), code=1)
    assert len(error.splitlines()) == 1
    assert re.search(says, error), error


def test_lpips_that_is_not_installed(
    run: Run, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("pcsr_lightning.evaluation.metrics")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    error = run(f"model={files}/m2.safetensors", f"data.root={files}/set", "lpips=true", code=1)
    assert re.search(r"^error: lpips=true: .*pip install -e '\.\[lpips\]'", error)


def test_defaults_of_the_config(run: Run) -> None:
    """``--cfg job`` shows what the command line would run with."""
    out = run("--cfg", "job")
    assert f"model: {DEFAULT_MODEL}" in out
    assert "root: ???" in out
    assert "fixed_class: null" in out


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("data.root=null", "data.root is missing: .*pcsr_lightning.evaluate .*data.root="),
        ("data.root=/nowhere/at/all", "data.root=/nowhere/at/all: no such folder"),
        ("data.root=MODEL", "m2.safetensors: is not a folder"),
        ("data.root=EMPTY", "no picture in this folder"),
        ("model=nobody", "no model is called 'nobody'"),
        ("colour=red", "colour: there is no such setting; there are backbones, data.name, "),
        ("routing.refin=true", "routing.refin: .*did you mean routing.refine"),
        ("routing=best", "routing=best: .*there are default"),
        ("data=DIR", "data: there is no such setting, but a group of them: data.name, data.root"),
        ("data.root", "data.root: cannot be read as KEY=VALUE"),
        ("data.root=a,b", "data.root=a,b: .*--multirun"),
        ("scale=four", "scale must be .*'four'"),
        ("scale=0.5", "scale must lie between 1 and 16, not 0.5"),
        ("routing.k=much", "routing: k must be a finite number, not 'much'"),
        ("routing.mode=budget", "routing: .*'budget' needs budget: .*such as 0.5"),
        ("routing.k=1 routing.budget=.5", "budget=0.5 and k=1 exclude each other"),
        ("routing.mode=fast", r"adaptive, budget, k.* or \w+, not 'fast'"),
        ("routing.fixed_class=2", "routing.fixed_class=2: .*classes 0 .* to 1"),
        ("protocol=paper", "protocol=paper: must be whole, published, patches or overlapped"),
        ("patch_size=64", "patch_size=64: .*protocol=patches, not protocol=whole"),
        ("target_psnr=0", "target_psnr=0: must be a positive"),
        ("protocol=published", "none of its 3 pictures"),
        ("save_images=perhaps", "save_images: .*'perhaps'.*bool"),
        ("device=tpu", "device=tpu: must be auto, cpu, cuda"),
        ("device=cuda:99", "device=cuda:99: "),
        ("threads=0", "threads=0: must be at least 1"),
        ("~scale", "scale: "),
        ("output=/dev/null", "/dev/null/.*: Not a directory"),
    ],
)
def test_mistakes(run: Run, files: Path, tmp_path: Path, setting: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    model = files / "m2.safetensors"
    setting = setting.replace("MODEL", str(model)).replace("EMPTY", str(tmp_path / "empty"))
    sound = [f"model={model}", f"data.root={files}/set", "device=cpu"]
    sound = [s for s in sound if s.split("=")[0] != setting.split("=")[0]]
    error = run(*sound, *(setting.split() if "routing" in setting else [setting]), code=1)
    lines = [line for line in error.splitlines() if not line.startswith("WARNING")]
    assert len(lines) == 1, error
    assert lines[0].startswith("error: ")
    assert re.search(says, lines[0]), lines[0]
    assert not list(tmp_path.rglob("metrics.json"))


def test_an_original_has_one_scale(run: Run, files: Path) -> None:
    error = run(f"model={files}/original.safetensors", f"data.root={files}/set", "scale=2", code=1)
    assert "scale=2: this is an original fsrcnn, made for scale 4 alone" in error


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("fsrcnn-pcsr-x4", "fsrcnn-pcsr-x4"),
        ("some/where/mine.safetensors", "mine"),
        ("/runs/stage-2/2026-01-01/model.safetensors", "2026-01-01-model"),
        ("/runs/stage-2/2026-01-01/checkpoints/best.ckpt", "2026-01-01-best"),
        ("/runs/stage-2/2026-01-01", "2026-01-01"),
        ("a b(c).ckpt", "a_b_c"),
        ("..", "model"),
        (None, "None"),
    ],
)
def test_names_for_run_folders(given: str | None, name: str) -> None:
    assert model_name(given) == name


def test_the_papers_rows_for_a_folder_of_that_name() -> None:
    carn = build_network(default_config("carn"))
    rows = published_for("set14", carn, (4.0, 4.0))
    assert [point.method for point in rows] == ["original", "ClassSR", "ARM", "PCSR"]
    for folder, scale in (("Set5", (4.0, 4.0)), ("Set14", (3.0, 3.0)), ("Set14", (4.0, 2.0))):
        with pytest.raises(ConfigError, match="published=true"):
            published_for(folder, carn, scale)


def test_every_picture_gets_its_own_budget(run: Run, tmp_path: Path) -> None:
    """The released model on the shipped photographs."""
    out = run(
        f"data.root={SAMPLE_FOLDER}/valid",
        "routing.mode=budget",
        "routing.budget=.5",
        "output=o",
    )
    assert "(budget = 0.5)" in out
    content = json.loads(only(tmp_path, "o/**/metrics.json").read_text())
    assert content["routing"]["budget"] == 0.5
    assert content["k"] is None
    model = load(DEFAULT_MODEL)
    assert isinstance(model, PCSR)
    assert len(content["images"]) == 2
    for image in content["images"]:
        H, W = image["size"]
        heavy = all_heavy_flops(model, (H // 4, W // 4), (H, W)).gmacs
        assert 0.99 <= image["gmacs"] / (0.5 * heavy) <= 1

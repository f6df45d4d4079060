"""A clean picture takes the usual model, a photograph its counterpart; options overrule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.batch.folders import lines, upscale
from tests.released_models import PHOTO, release_photo_model

from pcsr_lightning import load
from pcsr_lightning.batch.records import RECORD_NAME
from pcsr_lightning.weights import DEFAULT_MODEL

WHY = {"clean.png": "clean", "good.jpg": "JPEG of quality 97, little noise",
       "low.jpg": "JPEG of quality 60", "noisy.png": "noise of 12 levels"}  # fmt: skip
TAKEN = {
    "clean.png": DEFAULT_MODEL,
    "good.jpg": DEFAULT_MODEL,
    "low.jpg": PHOTO,
    "noisy.png": PHOTO,
}


@pytest.fixture(autouse=True)
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release_photo_model(tmp_path / "models", monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    slope = np.linspace(60, 190, 40)[None, :, None].repeat(32, 0).repeat(3, 2)
    noise = np.random.default_rng(0).normal(0, 12, slope.shape)
    for name, values in {"clean.png": slope, "low.jpg": slope, "good.jpg": slope,
                         "noisy.png": slope + noise}.items():  # fmt: skip
        quality = {"low.jpg": {"quality": 60}, "good.jpg": {"quality": 97}}.get(name, {})
        Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).save(folder / name, **quality)
    return folder


def pictures(*words: object) -> dict[str, dict[str, Any]]:
    """What was said of each picture, by its input's name."""
    done = upscale(*words, "--scale", 2, "--json")
    assert (done.code, done.err) == (0, "")
    return {Path(one["input"]).name: one for one in lines(done.out)[0]}


def test_each_picture_of_a_folder_takes_its_own(folder: Path) -> None:
    found = pictures(folder, "out")
    assert {name: one["model"] for name, one in found.items()} == TAKEN
    said = {name: one["model_reason"] for name, one in found.items()}
    assert said.pop("noisy.png").startswith("noise of 1")
    assert said == {name: why for name, why in WHY.items() if name != "noisy.png"}
    Path("by_name").mkdir()
    for name, model in TAKEN.items():  # what the model makes of it, to the last bit
        pictures(folder / name, f"by_name/{name}", "--model", model)
        assert Path("by_name", name).read_bytes() == Path("out", name).read_bytes()
    kept = [json.loads(line) for line in Path("out", RECORD_NAME).read_text().split("\n") if line]
    assert {one["name"]: one["settings"]["model"] for one in kept} == TAKEN


def test_resuming_is_exact(folder: Path) -> None:
    """Also where a model was named, before or afterwards: what it made is not made again."""
    pictures(folder, "out")
    whole = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    Path("out/low.jpg").unlink()
    statuses = {name: one["status"] for name, one in pictures(folder, "out").items()}
    assert statuses == {**dict.fromkeys(TAKEN, "skipped"), "low.jpg": "done"}
    assert all(Path("out", name).read_bytes() == whole[name] for name in TAKEN)
    named = pictures(folder, "out", "--model", PHOTO)
    assert {name: one["status"] == "skipped" for name, one in named.items()} == {
        name: model == PHOTO for name, model in TAKEN.items()
    }
    assert named["clean.png"]["outdated"] == f"model {PHOTO} instead of {DEFAULT_MODEL}"
    again = pictures(folder, "out")
    assert again["clean.png"]["outdated"] == f"model by the picture instead of {PHOTO}"
    assert {path.name for path in Path("out").iterdir()} == set(whole)
    assert all(Path("out", name).read_bytes() == whole[name] for name in TAKEN)


def test_the_result_says_which_and_why(folder: Path) -> None:
    done = upscale(folder / "low.jpg", "a.png")
    assert done.out.splitlines()[1] == f"  {PHOTO}: JPEG of quality 60"
    done = upscale(folder / "low.jpg", "b.png", "--verbose")
    first, second = done.out.splitlines()
    assert f"{DEFAULT_MODEL} or {PHOTO}, x4" in first
    assert f"b.png: {PHOTO}: JPEG of quality 60; 40x32 -> " in second
    done = upscale(folder / "low.jpg", "c.png", "--model", DEFAULT_MODEL)
    assert len(done.out.splitlines()) == 1
    assert Path("c.png").read_bytes() != Path("a.png").read_bytes()
    assert upscale(folder / "low.jpg", "d.png", "--quiet").out == ""


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--scale", 1), f"scale 1 is below those of {DEFAULT_MODEL}"),
        (("--size", "60x"), f"scale 1.5 is below those of {DEFAULT_MODEL}"),
        (("--denoise", 0.5), "taken for --denoise 0.5"),
    ],
)
def test_what_only_the_photo_model_can_do(
    folder: Path, words: tuple[object, ...], why: str
) -> None:
    done = upscale(folder / "clean.png", "a.png", *words)
    assert done.err == ""  # no warning of the scale
    assert done.out.splitlines()[1] == f"  {PHOTO}: {why}"


def test_denoise_with_a_model_that_has_none(folder: Path) -> None:
    done = upscale(folder / "clean.png", "a.png", "--denoise", 1, "--model", DEFAULT_MODEL)
    assert done.code == 1
    assert "this model's strength cannot be set" in done.err


@pytest.mark.usefixtures("folder")
def test_without_a_counterpart_nothing_is_chosen(tmp_path: Path) -> None:
    about = tmp_path / "models" / f"{PHOTO}.json"
    about.write_text(about.read_text("utf-8").replace("photo_of", "other"), "utf-8")
    found = pictures("in", "out")
    assert {(one["model"], one["model_reason"]) for one in found.values()} == {
        (DEFAULT_MODEL, None)
    }
    done = upscale("in/low.jpg", "a.png")
    assert len(done.out.splitlines()) == 1
    assert "strength cannot be set" in upscale("in/low.jpg", "b.png", "--denoise", 1).err


def test_models_are_loaded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    real: Callable[..., object] = load

    def counted(name: str, *rest: object) -> object:
        loaded.append(name)
        return real(name, *rest)

    monkeypatch.setattr("pcsr_lightning.weights.load", counted)
    pictures(folder, "out")
    assert loaded == [DEFAULT_MODEL, PHOTO]

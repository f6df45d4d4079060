"""``python -m pcsr_lightning.upscale``: what users type, what they get, what they are told."""

from __future__ import annotations

import functools
import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.commands import run_command

from pcsr_lightning import images, weights
from pcsr_lightning.batch.records import RECORD_NAME
from pcsr_lightning.images import Picture
from pcsr_lightning.inference import upscale
from pcsr_lightning.inference.execution import has_bf16
from pcsr_lightning.networks import PCSR, build_network, default_config


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = build_network(default_config("fsrcnn", 2))
    assert isinstance(model, PCSR)
    assert model.classifier is not None
    with torch.no_grad():
        # About half of the pixels to each class.
        model.classifier.project.weight.mul_(10)
        lr = torch.rand(1, 3, 16, 16)
        feat = model.features(lr)
        logits = model.logits(feat, model.grid((16, 16), (32, 32)))
        model.classifier.project.bias.sub_(logits.mean(dim=(0, 2, 3)))
    return weights.save(model, tmp_path_factory.mktemp("model") / "small")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "in.png"
    images.write(Picture(torch.rand(3, 12, 10)), path)
    return path


upscale_command = functools.partial(run_command, "upscale")


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != RECORD_NAME)


def test_from_the_command_line(model_file: Path, picture: Path, tmp_path: Path) -> None:
    target, classes = tmp_path / "out.png", tmp_path / "classes.png"
    words = ("--k", "-0.1", "--class-map", classes, "--threads", 1, "--verbose")
    done = upscale_command(picture, target, "--model", model_file, *words, code=0)
    assert done.err == ""
    settings, *lines = done.out.splitlines(keepends=True)
    assert settings == f"{model_file}, x4, k = -0.1, fp32, cpu, 1 threads\n"
    line = re.fullmatch(
        r"\S+/in\.png -> \S+/out\.png: 10x12 -> 40x48 in \d+\.\d\d s, "
        r"classes heavy to light (\S+)% / (\S+)%, "
        r"(\S+) GMACs, (\d+)% of all-heavy\n",
        "".join(lines),
    )
    assert line, done.out
    assert float(line[1]) + float(line[2]) == pytest.approx(100, abs=0.11)
    model = weights.load(model_file)
    lr = images.read(picture).rgb[None]
    expected = upscale(model, lr, 4, k=-0.1)
    assert float(line[1]) == pytest.approx(100 * expected.shares[0], abs=0.06)
    assert 0.02 < expected.shares[0] < 0.98
    assert (images.read(target).rgb - expected.image[0]).abs().max() <= 0.5 / 255 + 1e-5
    colours = images.read(classes).rgb
    heavy = expected.assignment[0] == 0
    warmth = colours[0] - colours[2]
    assert warmth[heavy].min() > 0 > warmth[~heavy].max()
    assert left_in(tmp_path) == ["classes.png", "in.png", "out.png"]


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        (["--scale", "2.5"], {"scale": 2.5}),
        (["--adaptive"], {"adaptive": True}),
        (["--fixed-class", "1"], {"fixed_class": 1}),
        (["--k", "0.3", "--cost", "proportional"], {"k": 0.3, "cost": "proportional"}),
        (["--no-refine"], {"refine": False}),
        (["--refine", "--scale", "2"], {"refine": True, "scale": 2}),
        (["--size", "37x41", "--exact"], {"size": (41, 37)}),
        (["--size", "37x41"], {"size": (41, 34)}),
        (["--budget", ".5"], {"budget": 0.5}),
        (["--budget", "62.5%"], {"budget": 0.625}),
    ],
)
def test_options_reach_the_network(
    model_file: Path, picture: Path, tmp_path: Path, options: list[str], keywords: dict[str, object]
) -> None:
    target = tmp_path / "out.tif"
    upscale_command(picture, target, "--model", model_file, *options, code=0)
    lr = images.read(picture).rgb[None]
    expected = upscale(weights.load(model_file), lr, **keywords)  # type: ignore[arg-type]
    assert (images.read(target).rgb - expected.image[0]).abs().max() <= 0.5 / 255 + 1e-5


def test_the_name_that_fixed_class_had(model_file: Path, picture: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "old.png", tmp_path / "new.png"]
    said = [
        upscale_command(picture, target, "--model", model_file, flag, 1, code=0).err
        for target, flag in zip(outputs, ("--only-class", "--fixed-class"), strict=True)
    ]
    assert said == ["WARNING: --only-class is deprecated: use --fixed-class\n", ""]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_original_model_takes_its_own_scale(picture: Path, tmp_path: Path) -> None:
    model = build_network(default_config("fsrcnn", original=True) | {"scale": 3})
    file = weights.save(model, tmp_path / "original")
    done = upscale_command(picture, "out.png", "--model", file, cwd=tmp_path, code=0)
    assert re.fullmatch(r"out\.png: 30x36 in \d+\.\d s\n", done.out)
    words = (picture, tmp_path / "out2.png", "--model", file, "--scale", 2)
    assert "made for scale 3 only" in upscale_command(*words, code=1).err
    upscale_command(picture, "--model", file, code=0)
    names = ["in.png", "in_x3.png", "original.json", "original.safetensors", "out.png"]
    assert left_in(tmp_path) == names


def test_depth_alpha_and_grey_are_kept(model_file: Path, tmp_path: Path) -> None:
    alpha = torch.rand(1, 6, 7)
    source = Picture(torch.rand(1, 6, 7).repeat(3, 1, 1), alpha, 16, grey=True)
    images.write(source, tmp_path / "in.png")
    upscale_command(
        tmp_path / "in.png", tmp_path / "out.png", "--model", model_file, "--scale", 2, code=0
    )
    out = images.read(tmp_path / "out.png")
    assert (out.bits, out.grey) == (16, True)
    assert out.alpha is not None
    assert out.alpha.shape == (1, 12, 14)
    # Not 8 bit in disguise.
    for values in (out.rgb, out.alpha):
        assert ((values * 65535).round() % 257 != 0).float().mean() > 0.5


def refused(args: Sequence[object], said: str) -> None:
    err = upscale_command(*args, code=1).err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    assert re.search(said, err), err


def test_refusals(model_file: Path, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    (tmp_path / "broken.png").write_bytes(picture.read_bytes()[:60])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "link.png").symlink_to(picture)
    before = picture.read_bytes()
    for source, said in [
        ("missing.png", "missing.png: no such file"),
        ("broken.png", "broken.png: cannot read"),
        ("text.png", "text.png: cannot read"),
        ("empty.png", "empty"),
    ]:
        refused([tmp_path / source, out, "--model", model_file], said)
    for target, said in [
        ("in.png", "is the input itself"),
        ("link.png", "is the input itself"),
        ("new/deep/out.png", r"does not exist; make it with: mkdir -p \S+new/deep"),
        ("out.xyz", "suffix chooses the format; use one of .png"),
        ("out", "suffix"),
    ]:
        refused([picture, tmp_path / target, "--model", model_file], said)
    for options, said in [
        (["--scale", "0.5"], "between 1 and 16, not 0.5"),
        (["--scale", "nan"], "finite"),
        (["--scale", "100"], "between 1 and 16"),
        (["--k", "inf"], "finite"),
        (["--fixed-class", "2"], "no class 2"),
        (["--budget", "150%"], "above 0 and up to 1, not 1.5"),
        (["--budget", "0"], "above 0 and up to 1, not 0.0"),
        (["--threads", "0"], "threads"),
        (["--class-map", out], "overwrite"),
        (["--class-map", picture], "is the input itself"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--model", picture], "expected a .safetensors"),
    ]:
        refused([picture, out, "--model", model_file, *options], said)
    if not torch.cuda.is_available():
        refused([picture, out, "--device", "cuda"], "no CUDA device")
    assert not out.exists()
    assert picture.read_bytes() == before


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["in.png", ""],
        ["in.png", "out.png", "--size", "big"],
        ["in.png", "out.png", "--size", "30x40", "--scale", "2"],
        ["in.png", "out.png", "--size", "30x", "--exact"],
        ["in.png", "out.png", "--exact"],
        ["in.png", "out.png", "--size", "30x40", "--exact", "--fit"],
        ["in.png", "out.png", "--format", "gif"],
        ["in.png", "out.png", "--quality", "0"],
        ["in.png", "out.png", "--quality", "101"],
        ["in.png", "out.png", "--max-pixels", "-1"],
        ["in.png", "out.png", "--json", "--quiet"],
        ["in.png", "-", "--json"],
        ["-", "--json"],
        ["in.png", "out.png", "--scale", "big"],
        ["in.png", "out.png", "--k", "1", "--adaptive"],
        ["in.png", "out.png", "--adaptive", "--fixed-class", "0"],
        ["in.png", "out.png", "--budget", ".5", "--adaptive"],
        ["in.png", "out.png", "--budget", "half"],
        ["in.png", "out.png", "--max-memory", "much"],
        ["in.png", "out.png", "--max-memory", "-1G"],
        ["in.png", "out.png", "--max-memory", ""],
        ["in.png", "out.png", "--precision", "fp8"],
        ["in.png", "out.png", "--cost", "cheap"],
        ["in.png", "out.png", "--sharpen"],
    ],
)
def test_wrong_usage_is_exit_code_2(wrong: list[str]) -> None:
    assert "usage:" in upscale_command(*wrong, code=2).err


def test_debug_shows_the_trace(tmp_path: Path) -> None:
    words = (tmp_path / "missing.png", tmp_path / "out.png", "--debug")
    assert "Traceback" in upscale_command(*words, code=1).err


def test_surprises_are_one_line_too(
    model_file: Path,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("not enough memory:\n you tried to allocate much")

    monkeypatch.setattr(images, "written_by_rows", fail)
    said = r"RuntimeError: not enough memory: you tried to allocate much \(--debug"
    refused([picture, tmp_path / "out.png", "--model", model_file], said)


def test_a_budget_is_kept_or_said_to_be_out_of_reach(
    model_file: Path, picture: Path, tmp_path: Path
) -> None:
    def lines(budget: str) -> list[str]:
        options = ("--model", model_file, "--budget", budget, "--overwrite")
        done = upscale_command(picture, "out.png", *options, cwd=tmp_path, code=0)
        assert all(len(line) <= 80 for line in done.out.splitlines())
        return done.out.splitlines()

    assert re.fullmatch(
        r"out\.png: 40x48 in \d\.\d s, \d+% of pixels heavy, 50% of full cost", lines("50%")[0]
    )
    assert lines("50%")[1:] == []
    assert lines("1%")[0].endswith(", 0% of pixels heavy, 8% of full cost")
    assert " ".join(line.strip() for line in lines("1%")[1:]) == (
        "the budget of 1% is below the floor of this model, 8.05% of all-heavy: every pixel went "
        "to the lightest class"
    )
    assert lines("1")[0].endswith(", 100% of pixels heavy, 100% of full cost")
    assert lines("1")[1].startswith("  the budget is the ceiling, all-heavy")


def test_little_memory_gives_the_same_file(model_file: Path, picture: Path, tmp_path: Path) -> None:
    files = []
    for options in ([], ["--max-memory", "1G"], ["--max-memory", "300k"]):
        out = tmp_path / f"{len(files)}.png"
        done = upscale_command(picture, out, "--model", model_file, *options, code=0)
        assert "error" not in done.err
        files.append(out.read_bytes())
    assert files[0] == files[1] == files[2]


@pytest.mark.skipif(not has_bf16("cpu"), reason="this processor does not multiply bfloat16")
def test_half_precision_changes_little(model_file: Path, picture: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        out = tmp_path / f"{precision}.png"
        upscale_command(picture, out, "--model", model_file, "--precision", precision, code=0)
    full, half = (images.read(tmp_path / f"{p}.png").rgb for p in ("fp32", "bf16"))
    assert 0 < (full - half).abs().max() < 0.05


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), 1e30])
def test_damaged_weights_are_told_and_nothing_is_written(
    picture: Path, tmp_path: Path, damage: float
) -> None:
    """Not written as black. 1e30 is finite in the file, and overflows on the way."""
    model = build_network(default_config("fsrcnn", 2))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.where(torch.rand_like(weight) < 0.5, damage, weight))
    file = weights.save(model, tmp_path / "damaged")
    refused([picture, tmp_path / "out.png", "--model", file], "NaN or infinite")
    refused([picture, "--json", "--model", file], "NaN or infinite")
    assert left_in(tmp_path) == ["damaged.json", "damaged.safetensors", "in.png"]


def test_a_signal_that_gets_lost_still_stops_the_run(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a finalizer, say, Python can only print an exception."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        images.write(Picture(torch.rand(3, 6, 5)), folder / f"{i}.png")
    real = images.read

    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    def read(*args: Any, **options: Any) -> Picture:
        Dying()
        return real(*args, **options)

    monkeypatch.setattr(images, "read", read)
    upscale_command(folder, tmp_path / "out", "--model", model_file, code=143)
    assert left_in(tmp_path / "out") == []


def test_a_backbone_of_ones_own(picture: Path, tmp_path: Path) -> None:
    refused([picture, tmp_path / "out.png", "--backbone", "no.such.Thing"], "no.such")


def test_transparent_pixels_lend_no_colour(model_file: Path, tmp_path: Path) -> None:
    """A red disc on nothing, saved with black under the nothing: the edge stays red."""
    rows, cols = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    alpha = ((rows - 11.5) ** 2 + (cols - 11.5) ** 2 < 64).float()[None]
    rgb = torch.tensor([1.0, 0.2, 0.2])[:, None, None] * alpha
    images.write(Picture(rgb, alpha), tmp_path / "in.png")
    upscale_command(tmp_path / "in.png", tmp_path / "out.png", code=0)
    out = images.read(tmp_path / "out.png")
    assert out.alpha is not None
    edge = (out.alpha[0] > 0.1) & (out.alpha[0] < 0.9)
    assert int(edge.sum()) > 50
    assert out.rgb[0][edge].min() > 0.85

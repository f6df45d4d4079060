"""What models know of the scales they were trained for, and what is said of others."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tests.commands import SMALL_TRAINING, run_command
from tests.small import small_pcsr, write_textures

from pcsr_lightning.evaluation.measurement import Measurement, Quality
from pcsr_lightning.evaluation.run import warn_if_worse
from pcsr_lightning.routing import RoutingConfig
from pcsr_lightning.training.train_stage import metadata
from pcsr_lightning.weights import load, save, save_pretrained, scale_warning


@pytest.mark.parametrize(
    ("name", "scales", "inside", "outside"),
    [
        ("carn-pcsr-x4", (4.0, 4.0), [(4, 4)], [(1.5, 1.5), (8, 8), (4, 3.7)]),
        ("carn-pcsr-multi", (2.0, 4.0), [(2, 2), (3.3, 3.3), (4, 2)], [(1.9, 2), (4, 4.1)]),
    ],
)
def test_released_models_know_their_scales(
    name: str,
    scales: tuple[float, float],
    inside: list[tuple[float, float]],
    outside: list[tuple[float, float]],
) -> None:
    model = load(name)
    assert model.trained_scales == scales
    assert [scale_warning(model, name, scale) for scale in inside] == [None] * len(inside)
    assert all(scale_warning(model, name, scale) for scale in outside)


def test_a_warning_names_a_model_for_the_scale() -> None:
    x4, multi = load("carn-pcsr-x4"), load("carn-pcsr-multi")
    assert scale_warning(x4, "mine", (3, 3)) == (
        "mine was trained for x4, not x3: bicubic may be better; "
        "carn-pcsr-multi was trained for x2 to x4"
    )
    assert scale_warning(x4, "mine", (1.5, 2)) == (
        "mine was trained for x4, not x1.5 x 2: bicubic may be better; "
        "no released model was trained for it, the nearest is carn-pcsr-multi (x2 to x4)"
    )
    said = scale_warning(multi, "carn-pcsr-multi", (8, 8))
    assert said is not None
    assert said.endswith("no released model was trained for it")
    assert scale_warning(x4, "mine", (3.98, 4.02), tolerance=0.03) is None


def test_the_scales_are_kept_and_need_not_be_known(tmp_path: Path) -> None:
    model = small_pcsr()
    assert load(save(model, tmp_path / "unknown")).trained_scales is None
    assert scale_warning(model, "m", (1, 1)) is None
    model.trained_scales = (2.0, 4.0)
    save_pretrained(model, tmp_path / "folder")
    assert load(tmp_path / "folder").trained_scales == (2.0, 4.0)
    for odd in ("4", [], [1, 2, 3], ["4"], [float("nan")], {"low": 2}, None):
        path = save(model, tmp_path / "odd", {"scales": odd})
        assert load(path).trained_scales is None


@pytest.mark.parametrize(
    ("data", "scales"),
    [
        ({"scale": 4}, [4.0]),
        ({"scale": [2, 4]}, [2.0, 4.0]),
        ({"scale": [4, 2.5, 3]}, [2.5, 4.0]),
        ({"scale": "any"}, None),
        ({}, None),
    ],
)
def test_a_training_writes_its_scales(data: dict[str, object], scales: list[float] | None) -> None:
    given = {"stage": {"name": "1"}, "backbone": {"name": "carn"}, "num_classes": 2, "seed": 0}
    assert metadata(OmegaConf.create(given | {"data": data})).get("scales") == scales


def test_a_trained_model_and_its_checkpoint_know_their_scales(tmp_path: Path) -> None:
    words = (*SMALL_TRAINING, "stage=1", "data.scale=[2,3]", "trainer.max_steps=1")
    run_command("train", *words, "hydra.run.dir=run", cwd=tmp_path, code=0)
    assert json.loads((tmp_path / "run" / "model.json").read_text())["scales"] == [2, 3]
    for file in ("model.safetensors", "checkpoints/last.ckpt"):
        assert load(tmp_path / "run" / file).trained_scales == (2.0, 3.0)


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ((), 0),
        (("--scale", "1.5"), 1),
        (("--scale", "1.5", "--quiet"), 0),
        (("--size", "65x"), 0),  # a pixel more than x4 is
        (("--size", "30x"), 1),
    ],
)
def test_upscale_warns_once(options: tuple[str, ...], lines: int, tmp_path: Path) -> None:
    write_textures(tmp_path / "in", {"a.png": (16, 16), "b.png": (17, 16)})
    words = ("in", "out", "--model", "carn-pcsr-x4", "--threads", "1", *options)
    done = run_command("upscale", *words, cwd=tmp_path, code=0)
    warnings = done.err.splitlines()
    assert len(warnings) == lines
    for line in warnings:
        assert line.startswith("WARNING: carn-pcsr-x4 was trained for x4, not x1.")
        assert "carn-pcsr-multi" in line


def test_evaluate_warns_once_and_says_what_is_worse_than_bicubic(tmp_path: Path) -> None:
    write_textures(tmp_path / "set", {"a.png": (48, 40), "b.png": (40, 48)})
    words = ("model=carn-pcsr-x4", "data.root=set", "scale=1.5", "threads=1")
    done = run_command("evaluate", *words, cwd=tmp_path, code=0)
    trained, worse = done.err.splitlines()
    assert trained.startswith("WARNING: carn-pcsr-x4 was trained for x4, not x1.5: ")
    assert worse.startswith("WARNING: carn-pcsr-x4 is worse than bicubic on these pictures: ")
    done = run_command("evaluate", *words, "sweep=k", "sweep_values=[0,1]", cwd=tmp_path, code=0)
    trained, worse = done.err.splitlines()
    assert worse.startswith("WARNING: carn-pcsr-x4 is worse than bicubic on these pictures: ")


def test_which_values_are_worse_than_bicubic(caplog: pytest.LogCaptureFixture) -> None:
    points = [
        Measurement(routing=RoutingConfig(k=k), psnr=psnr, bicubic=Quality(psnr=28.0))
        for k, psnr in ((0, 28.5), (1, 27.9), (2, 27.5))
    ]
    warn_if_worse("m", points[:1])
    assert not caplog.messages
    warn_if_worse("m", points)
    assert caplog.messages == [
        "m is worse than bicubic on these pictures with k = 1, k = 2: 27.90 dB against 28.00 dB"
    ]

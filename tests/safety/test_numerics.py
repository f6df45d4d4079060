"""Numbers that are none are told of, not written as black; tiny pictures work at every scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import png
import pytest
import pyvips
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.small import small_pcsr

from pcsr_lightning.cli.upscale import main
from pcsr_lightning.errors import ConfigError, PCSRError
from pcsr_lightning.images import read
from pcsr_lightning.inference import output_size, upscale
from pcsr_lightning.weights import load, save

SIZES = [(1, 1), (1, 7), (7, 1), (1, 40), (3, 5), (2, 2)]
SCALES = [1, 1.05, 1.5, 2, 2.5, 3, math.pi, 4, 5, 5.99, 6, 7, 7.5, 8]
NO_SCALES = [0.999, 0.5, 0, -0.0, -1, -4, math.nan, math.inf, -math.inf, 16.01, 1e9, 1e308]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small_pcsr(), tmp_path_factory.mktemp("model") / "m")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Exit code and stderr of the command in this process."""

    def call(*words: object) -> tuple[int, str]:
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, capsys.readouterr().err

    return call


# What is no number


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("max_memory", [None, 1])
def test_pixels_that_are_no_numbers(value: float, max_memory: int | None) -> None:
    lr = torch.rand(1, 3, 9, 7)
    lr[0, 1, 4, 3] = value
    with pytest.raises(ConfigError, match="1 values that are NaN or infinite"):
        upscale(small_pcsr(), lr, 2, max_memory=max_memory)


@pytest.mark.parametrize("value", [0.5, math.nan, math.inf, 3e38])
@pytest.mark.parametrize("depth", [np.float16, np.float32, np.float64])
def test_pictures_of_fractions_are_refused(
    value: float, depth: Any, file: Path, command: Any, tmp_path: Path
) -> None:
    pixels = np.full((5, 4, 3), 0.5, np.float64)
    pixels[2, 1] = value
    with np.errstate(over="ignore"):
        tifffile.imwrite(tmp_path / "x.tif", pixels.astype(depth), photometric="rgb")
    code, err = command(tmp_path / "x.tif", tmp_path / "y.png", "--model", file)
    assert code == 1
    [line] = err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'x.tif'}: ")
    assert "cannot read this picture" in line
    assert not (tmp_path / "y.png").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
@pytest.mark.parametrize(
    "name", ["backbone.head.0.weight", "upsamplers.0.project.bias", "upsamplers.1.offset.weight"]
)
def test_weights_that_give_no_numbers(
    name: str, value: float, file: Path, command: Any, tmp_path: Path
) -> None:
    """Refused when they are loaded; or, where only their products overflow, before a picture."""
    tensors = load_file(file)
    tensors[name].fill_(value)
    save_file(tensors, tmp_path / "m.safetensors")
    (tmp_path / "m.json").write_bytes(file.with_suffix(".json").read_bytes())
    Image.new("RGB", (5, 4), (255, 99, 3)).save(tmp_path / "x.png")
    words = (tmp_path / "x.png", tmp_path / "y.png", "--model", tmp_path / "m.safetensors")
    code, err = command(*words, "--fixed-class", 1 if "upsamplers.1" in name else 0)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "NaN or infinite" in err
    assert not (tmp_path / "y.png").exists()


def test_a_result_that_is_no_number() -> None:
    model = small_pcsr()
    with torch.no_grad():
        for value in model.upsampler(0).parameters():
            value.fill_(3e38)
    for bits in (None, 8, 16):
        for tile_rows in (None, 1):
            with pytest.raises(PCSRError, match="NaN or infinite"):
                upscale(
                    model, torch.rand(1, 3, 6, 5), 2, fixed_class=0, bits=bits, tile_rows=tile_rows
                )


# Tiny pictures, every scale


@pytest.mark.parametrize("backbone", ["fsrcnn", "carn"])
@pytest.mark.parametrize("scale", SCALES, ids="{:.4g}".format)
def test_tiny_pictures(backbone: str, scale: float) -> None:
    model = small_pcsr(backbone)
    for h, w in SIZES:
        lr = torch.rand(1, 3, h, w, generator=torch.Generator().manual_seed(h * w))
        found = upscale(model, lr, scale)
        assert found.image.shape[2:] == output_size((h, w), scale)
        assert found.image.shape[2:] == (round(h * scale), round(w * scale))
        assert bool(torch.isfinite(found.image).all())
        # As the network says it, written down plainly.
        with torch.no_grad():
            size = (found.image.shape[2], found.image.shape[3])
            out = model(lr, size)
        assert out.logits_BMQ is not None
        every_MB3Q = torch.stack(out.residual_MB3Q) + out.base_B3Q
        chosen = every_MB3Q.gather(
            0, found.assignment.long().flatten(1)[None, :, None].expand(1, 1, 3, -1)
        )
        plain = upscale(model, lr, scale, refine=False).image.flatten(2)
        assert (plain - chosen[0].clamp(0, 1)).abs().max() <= 1e-5


KINDS: dict[str, tuple[str, int]] = {"L": ("L", 8), "LA16": ("LA", 16), "RGB16": ("RGB", 16)}


@pytest.mark.parametrize("kind", KINDS)
def test_tiny_files(kind: str, file: Path, command: Any, tmp_path: Path) -> None:
    mode, bits = KINDS[kind]
    draw = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for h, w in SIZES:
        rows = draw.integers(0, 2**bits, (h, w * len(mode))).tolist()
        png.from_array(rows, f"{mode};{bits}").save(tmp_path / "in" / f"{h}x{w}.png")
    for scale in (1, 1.5, math.pi, 8):
        out = tmp_path / f"out{scale}"
        code, err = command(tmp_path / "in", out, "--model", file, "--scale", scale)
        assert (code, err) == (0, "")
        for h, w in SIZES:
            image = pyvips.Image.new_from_file(str(out / f"{h}x{w}.png"))
            assert (image.height, image.width) == (round(h * scale), round(w * scale))
            assert (image.bands, image.format) == (len(mode), {8: "uchar", 16: "ushort"}[bits])
            picture = read(out / f"{h}x{w}.png")
            assert picture.rgb.max() > 0
            assert bool(torch.isfinite(picture.rgb).all())


# Scales that are none


@pytest.mark.parametrize("scale", NO_SCALES)
def test_scales_that_are_none(scale: float, file: Path, command: Any, tmp_path: Path) -> None:
    for asked in (scale, (scale, 2), (2, scale)):
        with pytest.raises(ConfigError, match="scale"):
            upscale(small_pcsr(), torch.rand(1, 3, 3, 3), asked)
    Image.new("RGB", (5, 4)).save(tmp_path / "x.png")
    code, err = command(tmp_path / "x.png", tmp_path / "y.png", "--model", file, f"--scale={scale}")
    assert code == 1
    assert err.startswith("error: --scale must be")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "y.png").exists()


@pytest.mark.parametrize("scale", ["", "two", "2x", "1e", None, True, "2", (2,), (2, 2, 2), 2j])
def test_scales_that_are_no_numbers(scale: Any, file: Path, command: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scale"):
        output_size((3, 3), scale)
    if isinstance(scale, str) and scale != "2":
        code, _ = command("x.png", tmp_path / "y.png", "--model", file, f"--scale={scale}")
        assert code == 2


@pytest.mark.parametrize(
    "size", [(0, 0), (-4, 4), (2, 9), (9, 2), (49, 9), (math.nan, 9), (10**9, 10**9)]
)
def test_sizes_that_are_none(size: Any) -> None:
    with pytest.raises(ConfigError):
        upscale(small_pcsr(), torch.rand(1, 3, 3, 3), size=size)


def test_a_loaded_model_has_numbers_only(file: Path) -> None:
    assert all(bool(torch.isfinite(value).all()) for value in load(file).state_dict().values())

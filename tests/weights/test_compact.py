"""Real-ESRGAN's compact network: files that the tests make, read and upscaled with."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.commands import run_command
from tests.safety.hostile import Calls, refused
from tests.small import compact_state, write_textures
from torch import Tensor, nn
from torch.nn import functional as F

import pcsr_lightning
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference.features import StreamedRows, feature_rows
from pcsr_lightning.networks import Original
from pcsr_lightning.weights import save

State = dict[str, Tensor]


def plain(state: State, lr_B3hw: Tensor) -> Tensor:
    """What the network is, written down once more."""
    last = max(int(name.split(".")[1]) for name in state)
    x = lr_B3hw
    for place in range(0, last + 1, 2):
        weight, bias = (state[f"body.{place}.{kind}"].float() for kind in ("weight", "bias"))
        x = F.conv2d(x, weight, bias, padding=1)
        if place < last:
            slope = state[f"body.{place + 1}.weight"].float()[:, None, None]
            x = x.clamp(min=0) + slope * x.clamp(max=0)
    s = round((x.shape[1] / 3) ** 0.5)
    repeated = lr_B3hw.repeat_interleave(s, dim=2).repeat_interleave(s, dim=3)
    return F.pixel_shuffle(x, s) + repeated


def written(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "net.pth", {"params": compact_state(scale=2)})


# What is computed


@pytest.mark.parametrize(("nf", "blocks", "scale"), [(6, 2, 4), (5, 0, 1), (4, 3, 3)])
def test_it_is_the_plain_network_on_any_size_in_any_strips(
    tmp_path: Path, nf: int, blocks: int, scale: int
) -> None:
    state = compact_state(nf, blocks, scale)
    model = pcsr_lightning.load(written(tmp_path / "x.pth", state))
    assert isinstance(model, Original)
    assert model.scale == scale
    assert model.config()["backbone"] == {"name": "compact", "nf": nf, "blocks": blocks}
    for size in ((1, 3, 1, 9), (1, 3, 7, 1), (1, 3, 23, 10), (2, 3, 6, 5)):
        lr = torch.rand(size)
        expected = plain(state, lr)
        with torch.no_grad():
            assert (model(lr) - expected).abs().max() <= 1e-5
        for rows in (None, 1, 4):
            found = pcsr_lightning.upscale(model, lr, scale, tile_rows=rows)
            assert (found.image - expected.clamp(0, 1)).abs().max() <= 1e-5
    macs = nf * 27 + blocks * nf**2 * 9 + nf * 27 * scale**2 + 0.5 * nf * (blocks + 1)
    assert found.flops.gmacs == pytest.approx(60 * macs / 1e9)


def test_memory_depends_on_the_strip_alone(file: Path) -> None:
    model = pcsr_lightning.load(file)
    assert isinstance(model, Original)
    body = nn.Sequential(model.backbone, model.tail)
    needed = []
    for h in (50, 500):
        rows = feature_rows(body, model.backbone.halo, torch.rand(1, 3, h, 9), torch.float32)
        assert isinstance(rows, StreamedRows), "it is not streamed"
        needed.append(rows.memory(10))
    assert needed[0] == needed[1]


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {"params": state},
        lambda state: {"params_ema": state},
        lambda state: {"params": {"body.0.weight": torch.zeros(1)}, "params_ema": state, "n": 3},
        lambda state: {"params": {name: value.half() for name, value in state.items()}},
    ],
)
def test_where_files_keep_the_tensors(tmp_path: Path, wrapped: Callable[[State], Any]) -> None:
    state, lr = compact_state(scale=2), torch.rand(1, 3, 8, 9)
    model = pcsr_lightning.load(written(tmp_path / "x.pth", wrapped(state)))
    with torch.no_grad():
        assert (model(lr) - plain(state, lr)).abs().max() < 5e-3
    again = pcsr_lightning.load(save(model, tmp_path / "ours"))
    assert again.config() == model.config()


# Commands


def upscaled(file: Path, source: Path) -> np.ndarray[Any, Any]:
    """As 8-bit values."""
    lr_hw3 = torch.from_numpy(np.array(Image.open(source)))
    state = torch.load(file, weights_only=True)["params"]
    sr_3HW = plain(state, lr_hw3.permute(2, 0, 1)[None] / 255)[0].clamp(0, 1)
    return (sr_3HW * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)


def test_the_command_takes_a_picture_and_a_folder_and_resumes(file: Path) -> None:
    folder = write_textures(file.parent / "in", {"a.png": (17, 24), "deep/b.png": (16, 9)})
    done = run_command("upscale", "in/a.png", "--model", file.name, cwd=file.parent, code=0)
    assert re.fullmatch(r"in/a_x2\.png: 48x34 in \d+\.\d s\n", done.out)
    assert (folder / "a_x2.png").exists()
    (folder / "a_x2.png").unlink()
    words = ("upscale", "in", "out", "--model", file.name)
    run_command(*words, cwd=file.parent, code=0)
    for name in ("a.png", "deep/b.png"):
        found = np.array(Image.open(file.parent / "out" / name)).astype(int)
        assert np.abs(found - upscaled(file, folder / name)).max() <= 1, "rounding alone differs"
    (file.parent / "out" / "a.png").unlink()
    kept = (file.parent / "out" / "deep" / "b.png").stat().st_mtime_ns
    run_command(*words, cwd=file.parent, code=0)
    assert (file.parent / "out" / "a.png").exists()
    assert (file.parent / "out" / "deep" / "b.png").stat().st_mtime_ns == kept
    torch.save({"params": compact_state(blocks=1, scale=2)}, file)
    again = run_command(*words, cwd=file.parent, code=0)
    assert "another model called net.pth" in again.out + again.err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--k", 1), "k=1: an original model has one class"),
        (("--adaptive",), "adaptive: an original model has one class"),
        (("--budget", "50%"), "budget=0.5: an original model has one class"),
        (("--quantile", 0.3), "quantile=0.3: an original model has one class"),
        (("--fixed-class", 1), "an original model has class 0 only"),
        (("--scale", 4), "original compact model, made for scale 2 only"),
        (("--scale", 1.5), "original compact model, made for scale 2 only"),
        (("--denoise", 0.5), "denoise"),
    ],
)
def test_what_it_cannot_do_is_said_in_one_line(
    file: Path, option: tuple[object, ...], said: str
) -> None:
    write_textures(file.parent, {"a.png": (16, 16)})
    done = run_command("upscale", "a.png", "--model", file, *option, cwd=file.parent, code=1)
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not list(file.parent.glob("a_*"))


def test_in_python_too(file: Path) -> None:
    model = pcsr_lightning.load(file)
    with pytest.raises(ConfigError, match="k=2: an original model has one class"):
        pcsr_lightning.upscale(model, torch.rand(1, 3, 4, 4), 2, k=2)
    with pytest.raises(ConfigError, match="made for scale 2 only"):
        pcsr_lightning.upscale(model, torch.rand(1, 3, 4, 4), 4)


# What is refused


def changed(**tensors: Tensor | None) -> State:
    """A sound state but for some tensors; ``None`` takes one away."""
    new = {name.replace("_", "."): value for name, value in tensors.items()}
    return {k: v for k, v in (compact_state() | new).items() if v is not None}


REFUSED: dict[str, tuple[Any, str]] = {
    "RRDBNet": (
        {"params_ema": {"conv_first.weight": 0, "body.0.rdb1.conv1.weight": torch.ones(1)}},
        "holds RRDBNet, .* SRVGGNetCompact is read",
    ),
    "ESRGAN": ({"model.1.sub.0.RDB1.conv1.0.weight": torch.ones(1)}, "holds RRDBNet, ESRGAN's"),
    "SwinIR": (
        {"params": {"layers.0.residual_group.blocks.0.norm1.weight": torch.ones(1)}},
        "holds SwinIR or .* SRVGGNetCompact is read",
    ),
    "unknown": ({"params": {"stem.weight": torch.ones(1)}}, r"unknown network \(stem\.weight\)"),
    "no tensors": ({"params": {"a": 1}}, r"'model' with .* is missing \(it holds params\)"),
    "no PReLU": (
        {k: v for k, v in compact_state().items() if int(k.split(".")[1]) % 2 == 0},
        "its activation .* is not in the file",
    ),
    "grey": (changed(body_0_weight=torch.ones(6, 1, 3, 3)), "takes 1 channels .* expected 3"),
    "no integer scale": (changed(body_6_weight=torch.ones(15, 6, 3, 3)), "its last gives 15"),
    "one layer": ({k: v for k, v in compact_state().items() if "body.0" in k}, "body.2.weight"),
    "no last bias": (changed(body_6_bias=None), "missing tensor: body.6.bias"),
    "a slope too few": (changed(body_3_weight=None), "missing tensor: body.3.weight"),
    "more": (changed(extra_weight=torch.ones(1)), "unknown tensor: extra.weight"),
    "shape": (changed(body_2_weight=torch.ones(6, 7, 3, 3)), "do not fit"),
    "type": (changed(body_0_bias=torch.ones(6).int()), "torch.int32"),
    "NaN": (changed(body_0_bias=torch.full((6,), torch.nan)), "NaN"),
    "huge": (changed(body_0_weight=torch.ones(1).expand(10**9, 3, 3, 3)), "bytes in a file of"),
    "huge slopes": (changed(body_1_weight=torch.ones(1).expand(10**12)), "bytes in a file of"),
    "long names": ({"params": {"\x1b[2J" * 500: torch.ones(1)}}, "unknown network"),
    "a long name": (compact_state() | {"\x1b[2J" * 500: torch.ones(1)}, "unknown tensor"),
    "a call": ({"params": compact_state() | {"x": Calls(os.getpid, ())}}, "was not opened"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_and_hostile_files_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    content, message = REFUSED[case]
    refused(written(tmp_path / "x.pth", content), message)

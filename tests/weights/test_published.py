"""Published checkpoints, made up here by their layout: what is taken, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import pcsr_lightning
from pcsr_lightning.errors import ModelFileError
from pcsr_lightning.networks import PCSR, Original, plain_inputs
from pcsr_lightning.weights import load_model_file

State = dict[str, Tensor]


def random_state(shapes: dict[str, tuple[int, ...]]) -> State:
    generator = torch.Generator().manual_seed(0)
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def layer(name: str, *weight: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def srresnet(nf: int, blocks: int, tail: bool) -> State:
    shapes = layer("conv_first", nf, 3, 3, 3)
    for i in range(blocks):
        shapes |= layer(f"recon_trunk.{i}.conv1", nf, nf, 3, 3)
        shapes |= layer(f"recon_trunk.{i}.conv2", nf, nf, 3, 3)
    if tail:
        shapes |= layer("upconv1", 4 * nf, nf, 3, 3) | layer("upconv2", 4 * nf, nf, 3, 3)
        shapes |= layer("HRconv", nf, nf, 3, 3) | layer("conv_last", 3, nf, 3, 3)
    return random_state(shapes)


def fsrcnn(d: int = 8, s: int = 4, m: int = 3) -> State:
    shapes = layer("head_conv.0", d, 3, 5, 5) | {"head_conv.1.weight": (1,)}
    shapes |= layer("body_conv.0.0", s, d, 1, 1) | {"body_conv.0.1.weight": (1,)}
    for i in range(m):
        shapes |= layer(f"body_conv.{i + 1}", s, s, 3, 3)
    shapes |= {f"body_conv.{m + 1}.weight": (1,)}
    shapes |= layer(f"body_conv.{m + 2}.0", d, s, 1, 1) | {f"body_conv.{m + 2}.1.weight": (1,)}
    return random_state(shapes)


def mlp(widths: list[int]) -> State:
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        shapes |= layer(f"imnet.layers.{2 * i}", b, a)
    return random_state(shapes)


def parts(**states: State) -> State:
    return {f"{part}.{name}": v for part, state in states.items() for name, v in state.items()}


def spec(hidden: list[int]) -> dict[str, Any]:
    return {
        "name": "liif-sampler",
        "args": {"imnet_spec": {"name": "mlp", "args": {"hidden_list": hidden}}},
    }


def pcsr_content() -> dict[str, Any]:
    args = {
        "encoder_spec": {"name": "fsrcnn", "args": {"d": 8, "no_upsampling": True}},
        "heavy_sampler_spec": spec([6, 5]),
        "light_sampler_spec": spec([4]),
        "classifier_spec": spec([7]),
    }
    state = parts(
        encoder=fsrcnn(),
        heavy_sampler=mlp([12, 6, 5, 3]),
        light_sampler=mlp([12, 4, 3]),
        classifier=mlp([12, 7, 2]),
    )
    return {"model": {"name": "pcsr-phase1", "args": args, "sd": state}, "iter": 3}


def conv(x: Tensor, state: State, name: str) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)


def srresnet_features(x: Tensor, state: State, blocks: int) -> Tensor:
    x = F.leaky_relu(conv(x, state, "conv_first"), 0.1)
    for i in range(blocks):
        inner = F.relu(conv(x, state, f"recon_trunk.{i}.conv1"))
        x = x + conv(inner, state, f"recon_trunk.{i}.conv2")
    return x


def test_an_original_srresnet_gives_what_its_layers_say(tmp_path: Path) -> None:
    state = srresnet(nf=6, blocks=12, tail=True)  # 12: block 10 must not come after block 1
    args = {"upscale": 4, "nf": 6, "nb": 12, "no_upsampling": False}
    torch.save({"model": {"name": "srresnet", "args": args, "sd": state}}, tmp_path / "x.pth")
    model = pcsr_lightning.load(tmp_path / "x.pth")
    assert isinstance(model, Original)
    lr = torch.rand(1, 3, 9, 7)
    x = srresnet_features(lr, state, 12)
    for name in ("upconv1", "upconv2"):
        x = F.leaky_relu(F.pixel_shuffle(conv(x, state, name), 2), 0.1)
    x = conv(F.leaky_relu(conv(x, state, "HRconv"), 0.1), state, "conv_last")
    expected = x + F.interpolate(lr, scale_factor=4, mode="bilinear", align_corners=False)
    with torch.no_grad():
        torch.testing.assert_close(model(lr), expected, rtol=1e-4, atol=1e-5)


def test_phase_0_has_one_class(tmp_path: Path) -> None:
    state = srresnet(nf=6, blocks=2, tail=False)
    heavy = mlp([10, 5, 3])
    args = {
        "encoder_spec": {"name": "srresnet", "args": {"nf": 6}},
        "heavy_sampler_spec": spec([5]),
    }
    content = {"name": "pcsr-phase0", "args": args, "sd": parts(encoder=state, heavy_sampler=heavy)}
    torch.save({"model": content}, tmp_path / "x.pth")
    model = pcsr_lightning.load(tmp_path / "x.pth")
    assert isinstance(model, PCSR)
    assert (model.num_classes, model.classifier) == (1, None)
    lr = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        torch.testing.assert_close(model.features(lr), srresnet_features(lr, state, 2))


def test_phase_1_is_split_and_put_heavy_first(tmp_path: Path) -> None:
    content = pcsr_content()
    torch.save(content, tmp_path / "x.pth")
    model, facts = load_model_file(tmp_path / "x.pth")
    assert isinstance(model, PCSR)
    assert model.config()["backbone"] == {"name": "fsrcnn", "d": 8, "s": 4, "m": 3}
    assert model.config()["upsamplers"] == [[6, 5], [4]]
    assert facts == {"imported": {"file": "x.pth", "model": "pcsr-phase1"}}
    feat, grid = torch.randn(1, 8, 4, 3), model.grid((4, 3), (12, 9))
    x = plain_inputs(feat, grid)

    def plain(part: str) -> Tensor:
        state, out, place = content["model"]["sd"], x, 0
        while (name := f"{part}.imnet.layers.{place}") + ".weight" in state:
            out = F.linear(
                F.relu(out) if place else out, state[name + ".weight"], state[name + ".bias"]
            )
            place += 2
        return out.transpose(1, 2).unflatten(2, (12, 9))

    with torch.no_grad():
        for j, part in enumerate(("heavy_sampler", "light_sampler")):
            torch.testing.assert_close(model.residual(feat, grid, j), plain(part))
        torch.testing.assert_close(model.logits(feat, grid), plain("classifier").flip(1))


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


def with_value(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


SD = ("model", "sd")
REFUSED = {
    "no model": (without("model"), r"'model' .* is missing \(it holds iter\)"),
    "no sd": (without("model", "sd"), "lacks sd"),
    "no args": (without("model", "args"), "lacks args"),
    "a weight": (without(*SD, "encoder.body_conv.2.bias"), "missing tensor: encoder.body_conv.2.b"),
    "a bias": (without(*SD, "classifier.imnet.layers.2.bias"), "missing tensor: classifier.imnet"),
    "first": (without(*SD, "encoder.head_conv.0.weight"), "no known backbone"),
    "odd": (with_value(torch.ones(1), *SD, "encoder.x.weight"), "unknown tensor: encoder.x.weight"),
    "part": (with_value(torch.ones(1), *SD, "extra.weight"), "unknown part: extra"),
    "no tensor": (with_value(3, *SD, "encoder.x"), "'encoder.x' is not a named tensor"),
    "type": (with_value(torch.ones(8).int(), *SD, "encoder.head_conv.0.bias"), "torch.int32"),
    "shape": (with_value(torch.ones(7), *SD, "encoder.head_conv.0.bias"), "do not fit"),
    "inputs": (
        with_value(torch.ones(6, 99), *SD, "heavy_sampler.imnet.layers.0.weight"),
        "where 12 inputs arrive",
    ),
    "nan": (with_value(torch.tensor([float("nan")]), *SD, "encoder.head_conv.1.weight"), "NaN"),
    "huge": (
        with_value(torch.ones(1).expand(10**12), *SD, "encoder.head_conv.0.bias"),
        "bytes in a file of",
    ),
    "hidden": (
        with_value(spec([9, 9]), "model", "args", "heavy_sampler_spec"),
        r"hidden layers \[6, 5\], model.args says \[9, 9\]",
    ),
    "width": (
        with_value({"args": {"d": 48}}, "model", "args", "encoder_spec"),
        "says d=48 where its tensors have 8",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, case: str) -> None:
    change, message = REFUSED[case]
    content = pcsr_content()
    change(content)
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ModelFileError, match=message) as caught:
        pcsr_lightning.load(tmp_path / "x.pth")
    assert str(tmp_path / "x.pth") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_a_second_phase_is_refused(tmp_path: Path) -> None:
    content = pcsr_content()
    content["model"]["sd"] = {
        name: v for name, v in content["model"]["sd"].items() if not name.startswith("light")
    }
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ModelFileError, match="missing part: light_sampler"):
        pcsr_lightning.load(tmp_path / "x.pth")


def test_an_original_without_its_tail_or_scale_is_refused(tmp_path: Path) -> None:
    content = {"model": {"name": "srresnet", "args": {}, "sd": srresnet(6, 2, tail=False)}}
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ModelFileError, match="tail of srresnet is missing"):
        pcsr_lightning.load(tmp_path / "x.pth")
    content = {"model": {"name": "srresnet", "args": {"upscale": 3}, "sd": srresnet(6, 2, True)}}
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ModelFileError, match="says scale 3, its tensors 4"):
        pcsr_lightning.load(tmp_path / "x.pth")
    tail = random_state(layer("tail_conv", 8, 3, 9, 9)) | {"tail_conv.bias": torch.zeros(3)}
    torch.save({"model": {"name": "fsrcnn", "args": {}, "sd": fsrcnn() | tail}}, tmp_path / "x.pth")
    with pytest.raises(ModelFileError, match="says scale None"):
        pcsr_lightning.load(tmp_path / "x.pth")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(pcsr_content(), path)
    whole = path.read_bytes()
    for broken in (b"", b"hello", whole[:200], whole[: len(whole) // 2], b"\x80\x02" + whole[:50]):
        path.write_bytes(broken)
        with pytest.raises(ModelFileError) as caught:
            pcsr_lightning.load(path)
        assert "\n" not in str(caught.value)

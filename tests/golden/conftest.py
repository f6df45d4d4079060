"""The published checkpoints as this library's networks, and what their authors' code made of them.

The ``.pth`` files among the reference data are third-party weights, read here and never shipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pcsr_lightning.networks import PCSR, Original, build_network, default_config

_NAMES = {
    "fsrcnn": [
        (r"^head_conv\.", "backbone.head."),
        (r"^body_conv\.0\.", "backbone.shrink."),
        (r"^body_conv\.6\.", "backbone.expand."),
        (r"^tail_conv\.", "tail."),
    ],
    "carn": [
        (r"^entry\.", "backbone.entry."),
        (r"^exit\.", "tail.6."),
        (r"^upsample\.up\.body\.", "tail."),
    ],
}


@pytest.fixture(scope="session")
def reference(shared: Path) -> Path:
    """The folder of reference data."""
    return shared / "reference"


@pytest.fixture(scope="session")
def golden(reference: Path) -> dict[str, Tensor]:
    """All of ``golden.npz``."""
    with np.load(reference / "golden.npz") as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


@pytest.fixture(scope="session")
def published_pcsr(reference: Path) -> Callable[[str], PCSR]:
    """``published_pcsr("carn")``: the published PCSR model, heaviest class first."""
    return cache(lambda backbone: _pcsr(reference, backbone))


@pytest.fixture(scope="session")
def published_original(reference: Path) -> Callable[[str], Original]:
    """``published_original("carn")``: the published original x4 model."""
    return cache(lambda backbone: _original(reference, backbone))


def _pcsr(reference: Path, backbone: str) -> PCSR:
    state = _state(reference / f"{backbone}-pcsr-phase1.pth")
    model = build_network(default_config(backbone, num_classes=2))
    assert isinstance(model, PCSR)
    ours: dict[str, Tensor] = {"mean": model.mean}
    for name, value in state.items():
        part, rest = name.split(".", 1)
        if part == "encoder":
            ours[_backbone_name(backbone, rest)] = value
        elif part == "classifier":
            # Light first as published: the last layer's outputs change places.
            last = max(int(n.split(".")[3]) for n in state if n.startswith("classifier."))
            flip = int(rest.split(".")[2]) == last
            ours |= _mlp("classifier", rest, value.flip(0) if flip else value, model)
        else:
            j = {"heavy_sampler": 0, "light_sampler": 1}[part]
            ours |= _mlp(f"upsamplers.{j}", rest, value, model)
    model.load_state_dict(ours)
    return model.eval()


def _original(reference: Path, backbone: str) -> Original:
    model = build_network(default_config(backbone, original=True))
    assert isinstance(model, Original)
    state = _state(reference / f"{backbone}-x4.pth")
    ours = {_backbone_name(backbone, name): value for name, value in state.items()}
    model.load_state_dict({"mean": model.mean, **ours})
    return model.eval()


def _state(file: Path) -> dict[str, Tensor]:
    content = torch.load(file, map_location="cpu", weights_only=True)
    state: dict[str, Tensor] = content["model"]["sd"]
    return state


def _backbone_name(backbone: str, name: str) -> str:
    for pattern, ours in _NAMES[backbone]:
        if re.match(pattern, name):
            return re.sub(pattern, ours, name)
    if backbone == "fsrcnn":
        # body_conv.1 to .4 are the mapping convolutions, .5 their PReLU.
        place, rest = re.match(r"body_conv\.(\d)\.(.*)", name).groups()  # type: ignore[union-attr]
        return f"backbone.mapping.{int(place) - 1}.{rest}"
    name = re.sub(r"^b(\d)\.", lambda m: f"blocks.{int(m[1]) - 1}.", name)
    name = re.sub(r"(^|\.)c(\d)\.", lambda m: f"{m[1]}merges.{int(m[2]) - 1}.", name)
    return "backbone.body." + name.replace(".b1.body.", ".residual.body.")


def _mlp(part: str, name: str, value: Tensor, model: PCSR) -> dict[str, Tensor]:
    place, kind = name.removeprefix("imnet.layers.").split(".")
    if int(place) > 0:
        return {f"{part}.tail.{int(place) - 1}.{kind}": value}
    if kind == "bias":
        return {f"{part}.project.bias": value}
    channels = model.backbone.out_channels
    return {
        f"{part}.project.weight": value[:, :channels],
        f"{part}.offset.weight": value[:, channels:],
    }

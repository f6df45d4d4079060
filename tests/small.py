"""Small networks and pictures that many tests share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pcsr_lightning.networks import PCSR, Original, PatchRouted, build_network, default_config

SMALL_BACKBONES = {
    "fsrcnn": {"name": "fsrcnn", "d": 8, "s": 4, "m": 1},
    "carn": {"name": "carn", "nf": 8, "group": 2},
}


def small_pcsr(backbone: str = "fsrcnn") -> PCSR:
    """Two classes, random weights."""
    torch.manual_seed(0)
    config = default_config(backbone, 2) | {"backbone": SMALL_BACKBONES[backbone]}
    model = build_network(config | {"upsamplers": [[8, 8], [4]]})
    assert isinstance(model, PCSR)
    return model.eval()


def small_first_stage() -> PCSR:
    """The network of stage 1, random weights."""
    torch.manual_seed(0)
    config = default_config("fsrcnn", 2) | {"backbone": SMALL_BACKBONES["fsrcnn"]}
    model = build_network(config | {"upsamplers": [[8, 8]], "classifier": None})
    assert isinstance(model, PCSR)
    return model


def small_original(backbone: str = "fsrcnn") -> Original:
    """The model that PCSR is compared with, for scale 4."""
    torch.manual_seed(0)
    config = default_config(backbone, original=True) | {"backbone": SMALL_BACKBONES[backbone]}
    model = build_network(config)
    assert isinstance(model, Original)
    return model.eval()


def write_textures(folder: Path, sizes: Mapping[str, tuple[int, int]]) -> Path:
    """Writes smooth noise under these names; a size is height, width. Returns ``folder``."""
    draw = np.random.default_rng(0)
    for name, (h, w) in sizes.items():
        coarse = Image.fromarray(draw.integers(0, 256, (h // 8, w // 8, 3), dtype=np.uint8))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((w, h), Image.Resampling.BICUBIC).save(folder / name)
    return folder


def small_patch_routed(
    kind: str, backbone: str = "fsrcnn", widths: tuple[int, ...] = (8, 6, 4)
) -> PatchRouted:
    """ClassSR or ARM on a small original network, random weights."""
    torch.manual_seed(0)
    config = small_original(backbone).config() | {"kind": kind, "widths": list(widths)}
    model = build_network(config)
    assert isinstance(model, PatchRouted)
    return model.eval()

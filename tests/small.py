"""Small networks and pictures that many tests share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

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


def compact_state(nf: int = 6, blocks: int = 2, scale: int = 4) -> dict[str, Tensor]:
    """Random tensors, named as those of Real-ESRGAN's ``SRVGGNetCompact``."""
    draw = torch.Generator().manual_seed(0)
    last = 2 * blocks + 2
    state: dict[str, Tensor] = {}
    for place in range(0, last + 1, 2):
        shape = (3 * scale**2 if place == last else nf, nf if place else 3, 3, 3)
        state[f"body.{place}.weight"] = torch.randn(shape, generator=draw) * 0.15
        state[f"body.{place}.bias"] = torch.randn(shape[0], generator=draw) * 0.05
        if place < last:
            state[f"body.{place + 1}.weight"] = torch.rand(nf, generator=draw)
    return state


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

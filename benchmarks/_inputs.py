"""The models and the pictures that the inference benchmark uses, and where it finds them."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.images import bicubic, list_pictures, read_rgb8
from pcsr_lightning.networks import PCSR, Original

SCALE = 4


class Models(NamedTuple):
    """Names or files, as ``pcsr_lightning.load`` takes them; ``original`` may be missing."""

    pcsr: str
    original: str | None


def load_pcsr(name: str) -> PCSR:
    """A PCSR model.

    Raises:
        ConfigError: it is an original one.
    """
    model = pcsr_lightning.load(name)
    if not isinstance(model, PCSR):
        raise ConfigError(f"--model {name}: this is an original model; give a PCSR one")
    return model


def load_original(name: str) -> Original:
    """An original model.

    Raises:
        ConfigError: it is a PCSR one, or made for another scale.
    """
    model = pcsr_lightning.load(name)
    if not isinstance(model, Original) or model.scale != SCALE:
        raise ConfigError(f"--original {name}: give an original model for scale {SCALE}")
    return model


def shared_folder() -> Path | None:
    """``$PCSR_SHARED``, or ``shared`` beside the checkout; ``None`` where there is neither.

    Raises:
        ConfigError: ``$PCSR_SHARED`` names no folder.
    """
    named = os.environ.get("PCSR_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if named and not folder.is_dir():
        raise ConfigError(f"PCSR_SHARED={named}: no such folder; mend it or unset it")
    return folder if folder.is_dir() else None


def find_models(
    shared: Path | None, pcsr: str | None, original: str | None, backbone: str = "carn"
) -> Models:
    """The published models of a backbone where they are, else released ones; what is named comes
    first.

    Raises:
        ConfigError: no PCSR model can be found.
    """
    if shared is not None and pcsr is None:
        files = [shared / "reference" / f"{backbone}-{name}.pth" for name in ("pcsr-phase1", "x4")]
        if all(file.is_file() for file in files):
            return Models(str(files[0]), original or str(files[1]))
    names = pcsr_lightning.list_models()
    if pcsr is None:
        pcsr = next((n for n in sorted(names) if n.endswith(f"{backbone}-pcsr-x4")), None)
    if pcsr is None:
        raise ConfigError(
            "no model to measure: set PCSR_SHARED to the folder that holds "
            "reference/carn-pcsr-phase1.pth, or give --model NAME_OR_FILE"
        )
    if original is None:
        backbone = load_pcsr(pcsr).backbone.name
        original = next((n for n in names if n.startswith(backbone) and "pcsr" not in n), None)
    return Models(pcsr, original)


class Photograph(NamedTuple):
    """An HR picture ``(1, 3, H, W)`` in [0, 1] that all others are cut from, and its name."""

    name: str
    hr_13HW: Tensor

    def pair(self, lr_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """An LR picture of this size and its HR original, the middle of the photograph."""
        hr_13HW = middle(self.hr_13HW, (SCALE * lr_size[0], SCALE * lr_size[1]))
        return bicubic(hr_13HW, lr_size), hr_13HW


def find_photograph(shared: Path | None) -> Photograph:
    """The first of the large photographs, else a small one that ships with the package."""
    large = None if shared is None else shared / "images" / "large"
    if large is not None and large.is_dir():
        path = list_pictures(large)[0]
    else:
        path = Path(str(resources.files("pcsr_lightning"))) / "data" / "sample/valid/coffee.png"
    return Photograph(path.name, read_rgb8(path)[None].float() / 255)


def middle(picture_13hw: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of a picture; one that is too small is repeated, mirrored, as far as it takes."""
    for dim, wanted in ((2, size[0]), (3, size[1])):
        there = picture_13hw.shape[dim]
        index = torch.arange(wanted) + max(0, (there - wanted) // 2)
        index = index.remainder(2 * there)
        picture_13hw = picture_13hw.index_select(dim, torch.minimum(index, 2 * there - 1 - index))
    return picture_13hw.contiguous()

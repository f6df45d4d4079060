"""Released models as a test makes them: the default one and its counterpart for photographs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.small import SMALL_BACKBONES

from pcsr_lightning import weights
from pcsr_lightning.networks import build_network, default_config
from pcsr_lightning.weights import DEFAULT_MODEL, registry

PHOTO = "small-photo"


def release_photo_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on these two are all that is released."""
    folder.mkdir()
    for suffix in (".safetensors", ".json"):
        (folder / f"{DEFAULT_MODEL}{suffix}").symlink_to(
            registry.RELEASED / f"{DEFAULT_MODEL}{suffix}"
        )
    torch.manual_seed(0)
    config = default_config("fsrcnn", 2) | {"backbone": SMALL_BACKBONES["fsrcnn"], "denoise": True}
    network = build_network(config | {"upsamplers": [[8, 8], [4]]})
    about = {"scales": [1, 4], "best_for": "tests", "photo_of": [DEFAULT_MODEL]}
    weights.save(network, folder / PHOTO, about)
    assert "denoise" in json.loads((folder / f"{PHOTO}.json").read_text("utf-8"))["network"]
    monkeypatch.setattr(registry, "RELEASED", folder)
    monkeypatch.setattr(registry, "CHECKOUT", folder / "none" / "models")

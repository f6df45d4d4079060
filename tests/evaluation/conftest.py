"""A folder of small pictures and networks with random weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.small import write_textures

from pcsr_lightning.networks import PCSR, Original, build_network, default_config


@pytest.fixture(scope="session")
def pcsr(make_network: Callable[..., PCSR]) -> PCSR:
    """FSRCNN-PCSR with two classes, both of which get pixels at k = 0."""
    return make_network()


@pytest.fixture(scope="session")
def original() -> Original:
    torch.manual_seed(1)
    model = build_network(default_config("fsrcnn", original=True))
    assert isinstance(model, Original)
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one in a sub-folder, and something that is no picture."""
    root = tmp_path / "pictures"
    write_textures(root, {"b.png": (70, 50), "more/a.jpg": (48, 80)})
    (root / "notes.txt").write_text("not a picture")
    return root

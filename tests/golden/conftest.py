"""The published checkpoints as this library's networks, and what their authors' code made of them.

The ``.pth`` files among the reference data are third-party weights, read here and never shipped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.networks import PCSR, Original


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

    def get(backbone: str) -> PCSR:
        model = pcsr_lightning.load(reference / f"{backbone}-pcsr-phase1.pth")
        assert isinstance(model, PCSR)
        return model

    return cache(get)


@pytest.fixture(scope="session")
def published_original(reference: Path) -> Callable[[str], Original]:
    """``published_original("carn")``: the published original x4 model."""

    def get(backbone: str) -> Original:
        model = pcsr_lightning.load(reference / f"{backbone}-x4.pth")
        assert isinstance(model, Original)
        return model

    return cache(get)

"""A visitor with a picture in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcsr_lightning.app.loading import load_sample
from pcsr_lightning.app.visitors import Visitor

MODEL = "fsrcnn-pcsr-x4"


@pytest.fixture
def visitor(tmp_path: Path) -> Visitor:
    """The coffee cup, 150 x 100."""
    made = Visitor(tmp_path / "visitor")
    made.show(load_sample("coffee"))
    return made

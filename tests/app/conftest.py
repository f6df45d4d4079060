"""A session with a picture in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcsr_lightning.app.loading import load_sample
from pcsr_lightning.app.session import Session

MODEL = "fsrcnn-pcsr-x4"


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """The coffee cup, 150 x 100."""
    made = Session(tmp_path / "session")
    made.show(load_sample("coffee"))
    return made

"""Small folders of made-up pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakePictures = Callable[..., Path]


@pytest.fixture
def make_pictures(tmp_path: Path) -> MakePictures:
    """Writes `{name: (height, width)}` as noise into a folder of this name."""

    def make(sizes: dict[str, tuple[int, int]], folder: str = "pictures") -> Path:
        generator = np.random.default_rng(0)
        for name, (height, width) in sizes.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return tmp_path / folder

    return make


@pytest.fixture
def folder(make_pictures: MakePictures) -> Path:
    """Three pictures with 6, 1 and 2 crops of 128 at full size."""
    return make_pictures({"a.png": (200, 256), "sub/b.bmp": (128, 128), "c.png": (192, 140)})

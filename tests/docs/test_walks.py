"""docs/walks.md and CONTRIBUTING name functions and files that exist."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "pcsr_lightning"
ROOTS = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
WALKS = (ROOT / "docs" / "walks.md").read_text(encoding="utf-8")
NAMES = sorted(
    name for name in set(re.findall(r"`([a-z_]+(?:\.\w+)+)`", WALKS)) if name.split(".")[0] in ROOTS
)


def resolve(name: str) -> Any:
    """What a dotted name below ``pcsr_lightning`` is."""
    *path, last = name.split(".")
    for end in range(len(path), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(["pcsr_lightning", *path[:end]]))
        except ModuleNotFoundError:
            continue
        for attribute in [*path[end:], last]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


def test_the_walks_have_names() -> None:
    assert len(NAMES) > 50
    with pytest.raises(AttributeError):
        resolve("data.datamodule.SRDataModule.nonexistent")


@pytest.mark.parametrize("name", NAMES)
def test_functions_of_the_walks_exist(name: str) -> None:
    assert callable(resolve(name))


def test_files_of_the_guide_exist() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = re.findall(r"`((?:src|conf|tests|docs|benchmarks)/[\w/.-]+|\w+/[\w/]+\.py)`", guide)
    assert files
    for name in files:
        assert "NAME" in name or (ROOT / name).exists() or (PACKAGE / name).exists(), name

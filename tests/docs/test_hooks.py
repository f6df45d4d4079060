"""Includes of other files in the documentation's pages."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(hooks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text(
        "# Title\n\n## One\n\nfirst\n\n### Part\n\npart\n\n```\n## no heading\n```\n\n## Two\n\n"
        "    indented\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        "[card](src/pcsr_lightning/weights/released/x.md), [page](docs/train.md#a), "
        "![picture](docs/images/p.png), [code](src/a.py), [tables](benchmarks/README.md#b), "
        "[away](https://example.org/x), [here](#one)\n"
    )
    return tmp_path


def test_sections(hooks: ModuleType, repository: Path) -> None:
    one = hooks.include("README.md", "One", "")
    assert one == "first\n\n### Part\n\npart\n\n```\n## no heading\n```"
    assert hooks.include("README.md", "One/Part", "").startswith("part\n")
    assert hooks.include("README.md", "Two", "").startswith("    indented\n")
    file = hooks.include("README.md", None, "")
    assert file.startswith("## Title\n\n### One\n")
    assert "\n## no heading\n" in file


@pytest.mark.parametrize(
    ("path", "section"), [("GONE.md", None), ("README.md", "Three"), ("README.md", "Two/Part")]
)
def test_a_missing_file_or_section_stops_the_build(
    hooks: ModuleType, repository: Path, path: str, section: str | None
) -> None:
    with pytest.raises(PluginError, match=path):
        hooks.include(path, section, "")


def test_links(hooks: ModuleType, repository: Path) -> None:
    two = hooks.include("README.md", "Two", "api")
    for link in (
        "[card](../models.md#x)",
        "[page](../train.md#a)",
        "![picture](../images/p.png)",
        " code,",
        "[tables](../performance.md#b)",
        "[away](https://example.org/x)",
        "[here](#one)",
    ):
        assert link in two, link

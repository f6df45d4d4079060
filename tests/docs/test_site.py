"""The documentation's site: it builds without a warning, is complete and loads nothing remote."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "inference",
    "routing",
    "networks",
    "streaming",
    "images",
    "training",
    "data",
    "evaluation",
    "weights",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` does."""
    folder = tmp_path_factory.mktemp("built") / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


class Fetched(HTMLParser):
    """Addresses that a browser fetches by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.found.append(named.get("src") or "")
        if tag == "link" and named.get("rel") != "canonical":
            self.found.append(named.get("href") or "")


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 20
    for page in pages:
        parser = Fetched()
        parser.feed(page.read_text(encoding="utf-8"))
        for address in filter(None, parser.found):
            assert not re.match(r"(?:[a-z]+:)?//", address), f"{page.name}: {address}"
            file = address.partition("?")[0].partition("#")[0]
            if page.name != "404.html":  # its addresses begin at the server's root
                assert (page.parent / file).is_file(), f"{page.name}: {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text()), style


def test_every_public_name_is_documented(site: Path) -> None:
    """But for values without a docstring of their own."""
    import importlib

    for package in PACKAGES:
        page = (site / "api" / f"{package}.html").read_text(encoding="utf-8")
        module = importlib.import_module(f"pcsr_lightning.{package}")
        # A function in a module of its own name is found below that module.
        ids = rf'id="pcsr_lightning\.{package}\.(?:[a-z_]\w*\.)?(\w+)"'
        missing = set(module.__all__) - set(re.findall(ids, page))
        assert not [name for name in missing if callable(getattr(module, name))], missing
    top = (site / "api" / "index.html").read_text(encoding="utf-8")
    for name in ("load", "upscale", "list_models"):
        assert f"pcsr_lightning.{name}" in top


def test_every_model_has_its_card(site: Path) -> None:
    import pcsr_lightning

    page = (site / "models.html").read_text(encoding="utf-8")
    for name in pcsr_lightning.list_models():
        assert f'id="{name}"' in page, name


def test_what_is_included_has_no_dead_links(site: Path) -> None:
    """mkdocs checks the pages' own; these came in later, from files elsewhere."""
    for page in ("performance.html", "models.html"):
        text = (site / page).read_text(encoding="utf-8")
        for target in re.findall(r'href="([^"#:]+?)(?:#[^"]*)?"', text):
            assert (site / target).exists(), f"{page}: {target}"
        assert "include:" not in text

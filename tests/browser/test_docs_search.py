"""The documentation, opened from a disk: its search finds pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from tests.browser.serving import PATIENCE

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]


def test_search_works_without_a_server(browser: Browser, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto((tmp_path / "index.html").as_uri())
        page.locator("input.md-search__input").click()
        page.keyboard.type("budget", delay=30)
        found = page.locator(".md-search-result__link")
        expect(found.first).to_be_visible()
        assert any("choosing.html" in str(link.get_attribute("href")) for link in found.all())
    finally:
        context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []

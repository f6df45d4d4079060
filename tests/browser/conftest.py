"""The page served by its own command, and a real Chromium that may reach nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Playwright,
    Request,
    expect,
    sync_playwright,
)
from tests.browser.serving import MAX_PIXELS, MODEL, PATIENCE, Served, free_port, open_page

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # whatever is asked of another machine fails at once
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]


@pytest.fixture(scope="session")
def chromium() -> str:
    """Chromium's file. Without one, tests are skipped, but never in CI."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found is not None:
            return found
    reason = "no chromium on PATH (Debian: apt-get install chromium)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def served(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page that makes small results only."""
    yield from serving(tmp_path_factory.mktemp("served"), "--max-pixels", str(MAX_PIXELS))


@pytest.fixture(scope="session")
def phone_served(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page with its usual limits."""
    yield from serving(tmp_path_factory.mktemp("served"))


def serving(folder: Path, *more: str) -> Iterator[Served]:
    """The command, run as users run it. When it is told to end, nothing of it may stay."""
    words = ["--model", MODEL, "--threads", "1", *more]
    words += ["--port", str(free_port())]
    process = subprocess.Popen(
        [sys.executable, "-m", "pcsr_lightning.app", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("http://127.0.0.1:"):
        _, errors = process.communicate(timeout=60)
        pytest.fail(f"the page did not start: {line}{errors}")
    [own] = folder.glob("pcsr-app-*")
    yield Served(line.split()[0], own)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    assert list(folder.glob("pcsr-app-*")) == []


@pytest.fixture(scope="session")
def playwright_() -> Iterator[Playwright]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def browser(playwright_: Playwright, chromium: str) -> Iterator[Browser]:
    browser = playwright_.chromium.launch(executable_path=chromium, args=ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture
def context(browser: Browser, served: Served) -> Iterator[BrowserContext]:
    """A visitor. The test fails if the page asks anything of another machine than its own."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, accept_downloads=True, reduced_motion="reduce"
    )
    context.set_default_timeout(PATIENCE)
    outside: list[str] = []

    def look(request: Request) -> None:
        if not request.url.startswith((served.url, "data:", "blob:")):
            outside.append(request.url)

    context.on("request", look)
    yield context
    context.close()
    assert outside == []


@pytest.fixture
def page(context: BrowserContext, served: Served) -> Iterator[Page]:
    """The page, open. The test fails if a script in it does."""
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    open_page(page, served)
    yield page
    assert errors == []

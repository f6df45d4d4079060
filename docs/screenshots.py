"""Pictures of the demo page for the README, taken of the running page.

    python docs/screenshots.py

Writes app-desktop.png, app-desktop-dark.png, app-large.png and app-phone.png into docs/images/.
Needs the extra `dev` and a Chromium on the PATH.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyvips
from playwright.sync_api import Browser, Page, sync_playwright

from pcsr_lightning.app.loading import sample_file

OUT = Path(__file__).parent / "images"
MODEL = "carn-pcsr-multi"
SAMPLE, BUDGET = "Rocket", 58
PATIENCE = 300_000
MOST_BYTES = 400_000
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@dataclass(frozen=True)
class Shot:
    """One picture: its file, the window, and how far the line and the class map are moved.

    ``large`` is of a photograph that is too large to be shown as a whole.
    """

    file: str
    width: int
    height: int
    scheme: str = "light"
    cut: int = 50
    opacity: int = 0
    compare: str = "bicubic"
    large: bool = False


SHOTS = (
    Shot("app-desktop.png", 1280, 1130, cut=46),
    Shot("app-desktop-dark.png", 1280, 1130, "dark", cut=46, opacity=55),
    Shot("app-large.png", 1280, 1130, cut=46, large=True),
    Shot("app-phone.png", 390, 844, cut=46),
)


def main() -> int:
    """Serves the page, takes the pictures, and ends it."""
    parser = argparse.ArgumentParser(prog="python docs/screenshots.py")
    parser.add_argument("--url", help="of a page that runs already (default: one is started)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder (default: docs/images)")
    args = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if chromium is None:
        print("error: no chromium on the PATH", file=sys.stderr)
        return 1
    process = None if args.url else serve()
    try:
        url = args.url or address(process)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM)
            for shot in SHOTS:
                take(browser, url, shot, args.out)
            browser.close()
    finally:
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait()
    return 0


def serve() -> subprocess.Popen[str]:
    """The page's own command."""
    words = [sys.executable, "-m", "pcsr_lightning.app", "--model", MODEL]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ})


def address(process: subprocess.Popen[str] | None) -> str:
    """What the command says first."""
    assert process is not None
    assert process.stdout is not None
    return process.stdout.readline().split()[0]


def take(browser: Browser, url: str, shot: Shot, out: Path) -> None:
    """One picture, in few enough colours to be small."""
    phone = shot.width < 700
    context = browser.new_context(
        viewport={"width": shot.width, "height": shot.height},
        color_scheme="dark" if shot.scheme == "dark" else "light",
        device_scale_factor=2 if phone else 1,
        has_touch=phone,
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(url)
    show(page, shot)
    path = out / shot.file
    page.screenshot(path=path, full_page=phone or shot.large)
    context.close()
    image = pyvips.Image.new_from_file(str(path), memory=True)
    image.pngsave(str(path), palette=True, Q=100, dither=1.0, effort=10, compression=9)
    size = path.stat().st_size
    print(f"{path}: {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"error: {path} has {size} bytes, more than {MOST_BYTES}")


def show(page: Page, shot: Shot) -> None:
    """A picture with its result, and the controls as the shot has them."""
    if shot.large:
        page.locator("#pcsr-drop input[type=file]").set_input_files(sample_file("retina"))
        page.wait_for_function("document.querySelector('.pv').dataset.shown")
        page.locator("#pcsr-command textarea").wait_for()
    else:
        compare(page)
    page.locator(".pv-choice").select_option(shot.compare)
    page.locator(".pv-cut").fill(str(shot.cut))
    page.locator(".pv-opacity").fill(str(shot.opacity))
    page.mouse.move(2, 2)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.wait_for_timeout(2500)


def compare(page: Page) -> None:
    """A sample, all-heavy there to compare with, the budget moved."""
    page.get_by_role("button", name=SAMPLE).click()
    page.get_by_role("button", name="Compare with all-heavy").click()
    heavy = "[...document.querySelectorAll('.pv-choice option')].some(o => o.value == 'all-heavy')"
    page.wait_for_function(heavy)
    page.locator("#pcsr-compute input[type=range]").fill(str(BUDGET))
    words = f"document.querySelector('.pv-right').textContent.includes('{BUDGET} %')"
    page.wait_for_function(words)


if __name__ == "__main__":
    sys.exit(main())

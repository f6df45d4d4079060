"""Files that come and go: large photographs, several pictures, formats, refusals with a remedy."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Page, expect
from tests.browser.serving import PATIENCE, Served, open_page, wait_for
from tests.browser.visiting import (
    compute,
    downloaded,
    file_of,
    key,
    picture,
    shown,
    upload,
)

from pcsr_lightning.images import Picture, read, write

pytestmark = pytest.mark.browser
PHONE, DESK = 390, 1280
Visit = Callable[[int], Page]


@pytest.fixture
def visit(browser: Browser, phone_served: Served) -> Iterator[Visit]:
    """Opens the page with its usual limits in a window so wide."""
    contexts = []

    def opened(width: int) -> Page:
        contexts.append(
            browser.new_context(
                viewport={"width": width, "height": 844},
                has_touch=width == PHONE,
                accept_downloads=True,
            )
        )
        contexts[-1].set_default_timeout(PATIENCE)
        page = contexts[-1].new_page()
        open_page(page, phone_served)
        return page

    yield opened
    for context in contexts:
        context.close()


def photograph(folder: Path, h: int, w: int) -> Path:
    """Smooth, so that it is soon made and sent."""
    path = folder / "phone.jpg"
    across, down = torch.linspace(0, 1, w)[None], torch.linspace(0, 1, h)[:, None]
    rgb = torch.stack([across.expand(h, w), down.expand(h, w), across * down])
    write(Picture(rgb), path)
    return path


@pytest.mark.parametrize(("width", "w", "h"), [(PHONE, 8160, 6120), (DESK, 4000, 3000)])
def test_a_part_of_a_large_photo_at_first(
    visit: Visit, tmp_path: Path, width: int, w: int, h: int
) -> None:
    """12 and 50 megapixels; the whole as a file is begun, reports, and is cancelled."""
    page = visit(width)
    page.locator("#pcsr-drop input[type=file]").set_input_files(photograph(tmp_path, h, w))
    shown(page, "PCSR, automatic")
    status = page.locator("#pcsr-status")
    expect(status).to_contain_text(f"{w} x {h} → {4 * w} x {4 * h} pixels")
    expect(status).to_contain_text("a part of it is shown")
    expect(page.locator("#pcsr-download")).to_have_text("Download this part")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    first = key(page)
    page.locator("#pcsr-overview img").click(position={"x": 10, "y": 10})
    wait_for(lambda: key(page) not in ("", first))
    name, part = downloaded(page, tmp_path, "Download this part")
    assert (name, part.rgb.shape) == ("phone_part_x4.png", (3, 1152, 1536))
    # On the top left there is little red.
    assert float(part.rgb[0].mean()) < 0.1
    command = page.locator("#pcsr-command")
    assert "phone.jpg phone_x4.png" in command.locator("textarea").input_value()
    expect(command.get_by_role("button")).to_be_visible()  # copies it

    page.locator("#pcsr-make").click()
    made = page.locator("#pcsr-made")
    expect(made.locator(".progress-level-inner")).to_contain_text("phone.jpg")
    compute(page, 30)  # the page stays usable
    shown(page, "PCSR, 30 %")
    page.locator("#pcsr-cancel").click()
    expect(made).to_contain_text("Cancelled")
    expect(page.locator("#pcsr-cancel")).to_be_hidden()


def test_the_whole_of_a_large_photo_in_the_background(visit: Visit, tmp_path: Path) -> None:
    page = visit(PHONE)
    page.locator("#pcsr-drop input[type=file]").set_input_files(photograph(tmp_path, 900, 1200))
    shown(page, "PCSR, automatic")
    page.get_by_role("radio", name="JPEG").check()
    expect(page.locator("#pcsr-command textarea")).to_have_value(
        "python -m pcsr_lightning.upscale phone.jpg phone_x4.jpg --model fsrcnn-pcsr-x4 "
        "--scale 4 --adaptive --quality 90"
    )
    page.locator("#pcsr-make").click()
    link = page.locator("#pcsr-made a")
    expect(link).to_contain_text("phone_x4.jpg")
    with page.expect_download() as waiting:
        link.click()
    waiting.value.save_as(tmp_path / "whole.jpg")
    assert read(tmp_path / "whole.jpg").rgb.shape == (3, 3600, 4800)


def test_several_pictures_are_a_zip(page: Page, tmp_path: Path) -> None:
    files = [file_of(picture(20, 30, seed), f"{seed}.png") for seed in (1, 2)]
    files.append({"name": "bad.png", "mimeType": "image/png", "buffer": b"words"})
    page.locator("#pcsr-drop input[type=file]").set_input_files(files=files)
    expect(page.locator("#pcsr-make")).to_have_text("Upscale all 3 pictures")
    page.locator("#pcsr-make").click()
    made = page.locator("#pcsr-made")
    expect(made.locator("a")).to_contain_text("pictures_x4.zip")
    expect(made.locator("[role=alert]")).to_contain_text("bad.png")
    with page.expect_download() as waiting:
        made.locator("a").click()
    waiting.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.namelist() == ["1_x4.png", "2_x4.png"]
        assert archive.testzip() is None


def test_a_download_does_not_wait_for_the_comparison(page: Page, tmp_path: Path) -> None:
    page.get_by_label("Model").click()
    page.get_by_role("option", name="srresnet-pcsr-x4:").click()
    upload(page, file_of(picture(300, 300), "slow.png"))
    shown(page, "PCSR, automatic")
    page.get_by_role("button", name="Compare with all-heavy").click()
    expect(page.locator("#pcsr-status")).to_contain_text("All-heavy, to compare with")
    name, _ = downloaded(page, tmp_path)
    assert name == "slow_x4.png"
    options = page.locator(".pv-choice option")
    assert "all-heavy" not in options.all_inner_texts()
    expect(options.filter(has_text="all-heavy")).to_have_count(1)


@pytest.mark.parametrize("format", ["JPEG", "WebP"])
def test_format_and_quality_of_the_download(page: Page, tmp_path: Path, format: str) -> None:
    page.get_by_role("button", name="Coffee").click()
    shown(page, "PCSR, automatic")
    quality = page.get_by_label("number input for Quality")
    expect(quality).to_be_hidden()
    page.get_by_role("radio", name=format).check()
    sizes = []
    for value in ("95", "20"):
        quality.fill(value)
        quality.press("Tab")
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Download", exact=True).click()
        suffix = {"JPEG": ".jpg", "WebP": ".webp"}[format]
        assert waiting.value.suggested_filename == f"coffee_x4{suffix}"
        path = tmp_path / f"{value}{suffix}"
        waiting.value.save_as(path)
        assert read(path).rgb.shape == (3, 400, 600)
        sizes.append(path.stat().st_size)
    assert sizes[0] > 2 * sizes[1]


def test_a_format_that_is_too_small_offers_another(page: Page) -> None:
    upload(page, file_of(Picture(torch.rand(3, 4, 5000)), "long.png"))
    shown(page, "PCSR, automatic")
    page.get_by_role("radio", name="WebP").check()
    page.get_by_role("button", name="Download", exact=True).click()
    alert = page.locator("#pcsr-status [role=alert]")
    expect(alert).to_contain_text("WebP holds at most 16,383")
    page.get_by_role("button", name="Use PNG").click()
    expect(page.get_by_role("radio", name="PNG")).to_be_checked()
    expect(alert).to_have_count(0)
    expect(page.get_by_label("number input for Quality")).to_be_hidden()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download", exact=True).click()
    assert waiting.value.suggested_filename == "long_x4.png"

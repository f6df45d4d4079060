"""What visitors do in the browser tests."""

from __future__ import annotations

from pathlib import Path

import torch
from playwright.sync_api import FilePayload, Page, expect

from pcsr_lightning.images import Picture, encode, read


def picture(h: int, w: int, seed: int = 0, bits: int = 8, alpha: bool = False) -> Picture:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(3, h, w, generator=generator)
    ramp = torch.linspace(0, 1, w)
    rgb = 0.5 * (1 - ramp) + noise * ramp
    alpha_1hw = torch.linspace(0.2, 1, h)[None, :, None].expand(1, h, w) if alpha else None
    return Picture(rgb, alpha_1hw, bits)


def file_of(picture: Picture, name: str = "mine.png") -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": encode(picture, "png")}


def upload(page: Page, file: FilePayload) -> None:
    page.locator("#pcsr-drop input[type=file]").set_input_files(files=[file])


def key(page: Page) -> str:
    """Of the request whose result is shown."""
    return page.locator(".pv").get_attribute("data-shown") or ""


def shown(page: Page, label: str) -> None:
    """Until the viewer shows a result so labelled."""
    expect(page.locator(".pv-right")).to_have_text(label)
    page.wait_for_function("document.querySelector('.pv').dataset.shown")


def compared(page: Page) -> None:
    """Asks for the all-heavy run, and waits until it can be compared with."""
    page.get_by_role("button", name="Compare with all-heavy").click()
    page.wait_for_function(
        "[...document.querySelectorAll('.pv-choice option')].some(o => o.value == 'all-heavy')"
    )


def compute(page: Page, percent: int) -> None:
    page.locator("#pcsr-compute input[type=range]").fill(str(percent))


def downloaded(page: Page, folder: Path, label: str = "Download") -> tuple[str, Picture]:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=label, exact=True).click()
    path = folder / "downloaded.png"
    waiting.value.save_as(path)
    return waiting.value.suggested_filename, read(path)

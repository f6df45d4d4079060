"""The page as its visitors meet it: a real browser, the real server, released weights."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, Page, expect
from tests.browser.serving import MAX_PIXELS, MODEL, Served, open_page, wait_for
from tests.browser.visiting import (
    compared,
    compute,
    downloaded,
    file_of,
    key,
    picture,
    shown,
    upload,
)
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.app.loading import load_sample
from pcsr_lightning.images import Picture, decode, encode
from pcsr_lightning.inference import RoutingConfig
from pcsr_lightning.networks import PCSR
from pcsr_lightning.weights import DEFAULT_MODEL, describe_models

pytestmark = pytest.mark.browser


def by_api(rgb_3hw: Tensor, budget: float | None = None, bits: int = 8) -> Tensor:
    """As the page makes it, automatically without a budget."""
    model = pcsr_lightning.load(MODEL)
    assert isinstance(model, PCSR)
    routing = RoutingConfig("adaptive") if budget is None else RoutingConfig(budget=budget)
    return pcsr_lightning.upscale(model, rgb_3hw[None], 4, routing=routing, bits=bits).image[0]


def whole(rgb_3HW: Tensor, bits: int = 8) -> Tensor:
    return (rgb_3HW * (2**bits - 1)).round().int()


def test_upload_slide_compare_download(page: Page, served: Served, tmp_path: Path) -> None:
    source = picture(40, 60)
    upload(page, file_of(source))
    shown(page, "PCSR, automatic")
    expect(page.locator("#pcsr-status")).to_contain_text("mine.png · 60 x 40 → 240 x 160 pixels")
    # What was sent is deleted.
    assert [path for path in served.folder.rglob("*") if "mine" in path.name] == []

    first = page.locator(".pv-map").get_attribute("src")
    compute(page, 30)
    shown(page, "PCSR, 30 %")
    assert page.locator(".pv-map").get_attribute("src") != first
    expect(page.locator("#pcsr-facts")).to_contain_text("Re-routed")
    assert 25 <= cost(page) <= 30

    # The line, and what is on its left.
    page.locator(".pv-cut").fill("25")
    box = page.locator(".pv-canvas").bounding_box()
    line = page.locator(".pv-line").bounding_box()
    assert box is not None
    assert line is not None
    assert line["x"] + line["width"] / 2 == pytest.approx(box["x"] + box["width"] / 4, abs=1)
    seen = page.locator(".pv-before").evaluate("image => getComputedStyle(image).clipPath")
    assert re.fullmatch(r"inset\(0(px)? (calc\(100% - 25%\)|75%) 0(px)? 0(px)?\)", seen), seen
    # All-heavy is computed when it is asked for, and not before.
    options = page.locator(".pv-choice option")
    assert options.all_inner_texts() == ["bicubic"]
    compared(page)
    assert options.all_inner_texts() == ["bicubic", "all-heavy"]
    expect(page.get_by_role("button", name="Compare with all-heavy")).to_be_disabled()
    sources = set()
    for name in ("bicubic", "all-heavy"):
        page.get_by_label("Compare with", exact=True).select_option(name)
        expect(page.locator(".pv-left")).to_have_text(name)
        wait_for(lambda: page.locator(".pv-before").get_attribute("src") not in sources)
        sources.add(page.locator(".pv-before").get_attribute("src"))
    page.locator(".pv-canvas").scroll_into_view_if_needed()
    box = page.locator(".pv-canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.up()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
    assert float(page.locator(".pv-cut").input_value()) == pytest.approx(75, abs=1)

    name, result = downloaded(page, tmp_path)
    assert name == "mine_x4.png"
    sent = decode(file_of(source)["buffer"])
    expected = by_api(sent.rgb, 0.3)
    assert torch.equal(whole(result.rgb), expected.int())


def test_bit_depth_and_alpha_are_kept(page: Page, tmp_path: Path) -> None:
    source = picture(24, 30, bits=16, alpha=True)
    upload(page, file_of(source, "deep.png"))
    shown(page, "PCSR, automatic")
    name, result = downloaded(page, tmp_path)
    assert (name, result.bits) == ("deep_x4.png", 16)
    assert result.alpha is not None
    assert result.alpha.shape == (1, 96, 120)
    sent = decode(file_of(source)["buffer"])
    off = whole(result.rgb, 16) - by_api(sent.rgb, bits=16).int()
    # 1e-6 of rounding is a fifteenth of a step of 16 bit
    assert int(off.abs().max()) <= 1
    assert float((off != 0).float().mean()) < 0.05
    page.get_by_label("Model").click()
    page.get_by_role("option", name="carn-pcsr-multi:").click()
    page.wait_for_function("document.querySelector('.pv').dataset.shown.includes('carn-pcsr')")


def test_a_sample_comes_with_its_reference(page: Page, tmp_path: Path) -> None:
    page.get_by_role("button", name="Cat").click()
    shown(page, "PCSR, automatic")
    expect(page.locator(".pcsr-facts tbody tr", has_text="PSNR")).to_contain_text("dB")
    page.get_by_label("Compare with", exact=True).select_option("reference")
    expect(page.locator(".pv-left")).to_have_text("reference")
    _, result = downloaded(page, tmp_path)
    assert torch.equal(whole(result.rgb), by_api(load_sample("chelsea").picture.rgb).int())


def slider_range(page: Page) -> tuple[float, float, float]:
    slider = page.locator("#pcsr-compute input[type=range]")
    low, high = (float(str(slider.get_attribute(name))) for name in ("min", "max"))
    return low, float(slider.input_value()), high


def cost(page: Page) -> int:
    cell = page.locator(".pcsr-facts tbody tr", has_text="Cost").locator("td").nth(1)
    percent = re.match(r"(\d+) %", cell.inner_text())
    assert percent is not None
    return int(percent[1])


def test_the_slider_goes_from_the_floor_to_all_heavy(page: Page) -> None:
    """It starts at the automatic choice; x2 costs at least 80 % of all-heavy with this model."""
    page.get_by_role("button", name="Coffee").click()
    shown(page, "PCSR, automatic")
    low, value, high = slider_range(page)
    assert (low, high) == (9, 100)
    assert value == cost(page) > 20
    page.get_by_label("Model").click()
    page.get_by_role("option", name="carn-pcsr-multi:").click()
    page.wait_for_function("document.querySelector('.pv').dataset.shown.includes('carn-pcsr')")
    scale = page.get_by_label("number input for Scale")
    scale.fill("2")
    scale.press("Tab")
    expect(page.locator("#pcsr-status")).to_contain_text("300 x 200 pixels")
    low, value, high = slider_range(page)
    assert 70 < low < value <= high == 100
    assert value == cost(page)
    compute(page, int(low))
    shown(page, f"PCSR, {low:g} %")
    expect(page.locator(".pcsr-legend")).to_contain_text("heavy 0 %")
    text = page.locator("#pcsr-compute").inner_text()
    assert "Faster or sharper" in text
    ends = "e => getComputedStyle(e, '::before').content + getComputedStyle(e, '::after').content"
    assert "faster" in page.locator("#pcsr-compute .min_value").evaluate(ends)
    assert "sharper" in page.locator("#pcsr-compute .max_value").evaluate(ends)


def test_models_say_what_they_are_best_for(page: Page) -> None:
    page.get_by_label("Model").click()
    for about in describe_models():
        option = page.get_by_role("option", name=f"{about.name}:")
        if about.has_classes:
            expect(option).to_contain_text(about.best_for)
            expect(option).to_contain_text(about.scales_text)
            if about.name != DEFAULT_MODEL:
                expect(option).to_contain_text(
                    f"{about.relative_time:.1f} times the default's time"
                )
        else:  # the page could not route its pixels
            expect(option).to_have_count(0)
    # and automatic, between a model and its counterpart
    assert page.get_by_role("option").count() == 1 + sum(m.has_classes for m in describe_models())


def test_k_a_time_and_automatic(page: Page) -> None:
    page.get_by_role("button", name="Coffee").click()
    shown(page, "PCSR, automatic")
    page.get_by_role("button", name="Advanced").click()
    page.get_by_role("radio", name="k", exact=True).check()
    shown(page, "PCSR, k = 0")
    page.get_by_label("range slider for k").fill("1")
    shown(page, "PCSR, k = 1")
    page.get_by_label("range slider for seconds").fill("30")
    shown(page, "PCSR, 30 s")
    expect(page.locator(".pcsr-legend")).to_contain_text("heavy 100 %")
    compute(page, 60)
    shown(page, "PCSR, 60 %")
    expect(page.get_by_role("radio", name="compute budget")).to_be_checked()
    page.get_by_role("radio", name="automatic").check()
    shown(page, "PCSR, automatic")


def test_the_class_map_moves_without_the_server(page: Page) -> None:
    page.get_by_role("button", name="Coffee").click()
    shown(page, "PCSR, automatic")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for percent in (20, 65, 100):
        page.get_by_label("Class map").fill(str(percent))
        opacity = page.locator(".pv-map").evaluate("image => getComputedStyle(image).opacity")
        assert float(opacity) == pytest.approx(percent / 100)
    page.get_by_label("Before / after").fill("10")
    page.get_by_role("button", name="2:1").click()
    assert page.locator(".pv-canvas").bounding_box()["width"] == 1200  # type: ignore[index]
    # An event begins with queue/join; queue/data are answers, which the first one may still await.
    assert [url for url in asked if not re.search("heartbeat|queue/data", url)] == []
    # Where the new view's pictures do not come, the old one stays as it is, shape and words.
    files = re.compile("api/file=")
    page.route(files, lambda route: route.abort())
    page.get_by_label("number input for Scale").fill("2")
    page.get_by_label("number input for Scale").press("Tab")
    expect(page.locator("#pcsr-status")).to_contain_text("300 x 200 pixels")
    assert page.locator(".pv-canvas").bounding_box()["width"] == 1200  # type: ignore[index]
    assert "scale=4" in key(page)
    page.unroute(files)
    compute(page, 30)
    shown(page, "PCSR, 30 %")
    assert page.locator(".pv-canvas").bounding_box()["width"] == 600  # type: ignore[index]


CORRUPT = [
    ("torn.png", encode(picture(40, 40), "png")[:500], "torn.png: cannot read this picture"),
    ("not.png", b"just words", "not.png: cannot read this picture"),
    ("empty.png", b"", "empty.png: the file is empty"),
    ("<img src=x onerror=alert(1)>.png", b"\x89PNG\r\n\x1a\n", "cannot read"),
]


def test_a_corrupt_upload_is_told_in_words(page: Page) -> None:
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    alert = page.locator("#pcsr-status [role=alert]")
    for name, content, says in CORRUPT:
        upload(page, {"name": name, "mimeType": "image/png", "buffer": content})
        expect(alert).to_contain_text(says)
        assert page.locator("img[src=x]").count() == 0
        assert key(page) == ""
    # The page goes on working.
    upload(page, file_of(picture(200, 200), "next.png"))
    expect(page.locator("#pcsr-status")).to_contain_text("next.png")
    expect(alert).to_have_count(0)
    # So does work under way, and its end does not wipe the message away.
    name, content, says = CORRUPT[0]
    upload(page, {"name": name, "mimeType": "image/png", "buffer": content})
    shown(page, "PCSR, automatic")
    expect(alert).to_contain_text(says)
    compute(page, 40)
    shown(page, "PCSR, 40 %")
    expect(alert).to_have_count(0)


def test_other_files_are_refused(page: Page) -> None:
    upload(page, {"name": "page.html", "mimeType": "text/html", "buffer": b"<b>hello</b>"})
    expect(page.get_by_text("Invalid file type")).to_be_visible()
    assert key(page) == ""


def test_too_large_is_refused_with_the_limit(page: Page) -> None:
    upload(page, file_of(picture(400, 400), "large.png"))
    alert = page.locator("#pcsr-status [role=alert]")
    expect(alert).to_contain_text("1,600 x 1,600 = 2,560,000 pixels")
    expect(alert).to_contain_text(f"at most {MAX_PIXELS:,}: scale 3 would do")
    upload(page, file_of(Picture(torch.zeros(3, 1300, 1300)), "huge.png"))
    expect(alert).to_contain_text(f"more than the {MAX_PIXELS:,}")
    expect(alert).to_contain_text("sets the limit with --max-pixels")
    # Nor does what the first one's failure says come back over it.
    page.wait_for_timeout(1500)
    expect(alert).to_contain_text(f"more than the {MAX_PIXELS:,}")
    # At a smaller scale the first one is made, whatever was asked for between.
    scale, download = page.get_by_label("number input for Scale"), page.locator("#pcsr-download")
    for _ in range(2):
        scale.fill("1.5")
        scale.press("Tab")
        expect(page.locator("#pcsr-status")).to_contain_text("400 x 400 → 600 x 600 pixels")
        expect(page.locator(".pv-right")).to_have_text("PCSR, automatic")
        expect(download).to_be_enabled()
        scale.fill("4")
        scale.press("Tab")
        expect(alert).to_contain_text("scale 3 would do")
        expect(page.locator(".pv")).to_have_attribute("data-empty", "true")
        expect(download).to_be_disabled()
    page.get_by_role("button", name="Use scale 3").click()
    expect(page.locator("#pcsr-status")).to_contain_text("400 x 400 → 1200 x 1200 pixels")
    expect(alert).to_have_count(0)
    expect(page.locator("#pcsr-remedy")).to_be_hidden()
    assert scale.input_value() == "3"
    # A sample brings the scale that it was shrunk by.
    scale.fill("2")
    scale.press("Tab")
    page.get_by_role("button", name="Coffee").click()
    expect(page.locator("#pcsr-status")).to_contain_text("150 x 100 → 600 x 400 pixels")


def test_a_reference_of_another_size(page: Page) -> None:
    upload(page, file_of(picture(20, 30)))
    shown(page, "PCSR, automatic")
    page.get_by_role("button", name="Compare with a reference").click()
    drop = page.locator("#pcsr-reference input[type=file]")
    drop.set_input_files(files=[file_of(picture(50, 50), "other.png")])
    note = page.locator("#pcsr-reference-note")
    expect(note).to_contain_text("other.png has 50 x 50 pixels, the result 120 x 80")
    drop.set_input_files(files=[file_of(picture(80, 120), "right.png")])
    expect(note).to_contain_text("Compared with right.png")
    expect(page.locator(".pcsr-facts tbody tr", has_text="PSNR")).to_contain_text("dB")
    expect(page.locator("#pcsr-facts")).to_contain_text("4 pixels of the border left out")


def test_a_new_request_stops_the_old_one(page: Page) -> None:
    page.evaluate(
        """() => {
          window.keys = [];
          new MutationObserver(() => keys.push(document.querySelector('.pv').dataset.shown))
            .observe(document.querySelector('.pv'), {attributeFilter: ['data-shown']});
        }"""
    )
    page.get_by_label("Model").click()
    page.get_by_role("option", name="carn-pcsr-x4-m3").click()
    upload(page, file_of(picture(300, 300), "slow.png"))
    # It is on its way once the status says so; there is no result of it yet.
    expect(page.locator("#pcsr-status")).to_contain_text("slow.png")
    for percent in (80, 70, 60):
        compute(page, percent)
    page.get_by_role("button", name="Rocket").click()
    shown(page, "PCSR, 60 %")
    expect(page.locator("#pcsr-status")).to_contain_text("rocket.jpg")
    time.sleep(1)
    keys = page.evaluate("keys")
    assert [k for k in keys if "compute=60" not in k] == []
    assert keys[-1].startswith("2 ")


def test_two_visitors_at_once(context: BrowserContext, browser: Browser, served: Served) -> None:
    other = browser.new_context()
    pages = [context.new_page(), other.new_page()]
    try:
        for page in pages:
            page.set_default_timeout(120_000)
            open_page(page, served)
        pages[0].get_by_role("button", name="Astronaut").click()
        pages[1].get_by_role("button", name="Bricks").click()
        for page, name in zip(pages, ("astronaut.png", "brick.png"), strict=True):
            shown(page, "PCSR, automatic")
            expect(page.locator("#pcsr-status")).to_contain_text(name)
        before = set((served.folder / "results").iterdir())
        assert len(before) >= 2
    finally:
        other.close()
    # Whoever has left leaves nothing behind.
    wait_for(lambda: len(before & set((served.folder / "results").iterdir())) < len(before), 60)


def focused(page: Page, selector: str) -> None:
    """Goes there by the tab key alone."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            outline = "getComputedStyle(document.activeElement).outline"
            assert "none" not in page.evaluate(outline), selector
            return
    pytest.fail(f"{selector} cannot be reached by the keyboard")


def test_by_keyboard_alone(page: Page, tmp_path: Path) -> None:
    focused(page, "#pcsr-samples button")
    page.keyboard.press("Enter")
    shown(page, "PCSR, automatic")
    focused(page, ".pv-stage")
    page.keyboard.press("ArrowRight")
    assert float(page.locator(".pv-cut").input_value()) == pytest.approx(51)
    page.keyboard.press("ArrowLeft")
    focused(page, ".pv-cut")
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    assert float(page.locator(".pv-cut").input_value()) == pytest.approx(45)
    focused(page, ".pv-opacity")
    page.keyboard.press("End")
    assert page.locator(".pv-map").evaluate("i => getComputedStyle(i).opacity") == "1"
    focused(page, ".pv-choice")
    page.keyboard.press("r")
    expect(page.locator(".pv-left")).to_have_text("reference")
    focused(page, "[data-zoom='2']")
    page.keyboard.press("Space")
    expect(page.locator("[data-zoom='2']")).to_have_attribute("aria-pressed", "true")
    focused(page, "#pcsr-compute input[type=range]")
    page.keyboard.press("Home")
    shown(page, "PCSR, 9 %")
    focused(page, "#pcsr-download")
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")
    assert waiting.value.suggested_filename == "coffee_x4.png"


def test_every_control_has_a_name(page: Page) -> None:
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, [tabindex="0"]')]
          .filter(e => e.offsetParent && e.type != 'file')
          .filter(e => !(e.getAttribute('aria-label') || e.innerText.trim() || e.title
            || e.labels?.length || e.getAttribute('aria-labelledby')))
          .map(e => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []

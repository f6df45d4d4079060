"""Widths and colours: nothing is cut off on a phone, and words can be read, light and dark."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser
from tests.browser.serving import PATIENCE, Served, open_page

pytestmark = pytest.mark.browser

# The contrast of WCAG 2, of a text with the first background behind it that is not transparent.
CONTRAST = """(selector) => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const element = document.querySelector(selector);
  let behind = element, back;
  do {
    back = numbers(getComputedStyle(behind).backgroundColor);
    behind = behind.parentElement;
  } while (behind && back.length === 4 && back[3] < 0.5);
  const [a, b] = [light(numbers(getComputedStyle(element).color).slice(0, 3)),
    light(back.slice(0, 3))].sort();
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""
WORDS = (
    ".pcsr-head h1",
    ".pcsr-head p",
    ".pcsr-note",
    ".pcsr-facts tbody th",
    ".pcsr-facts td b",
    ".pcsr-facts td small",
    ".pcsr-legend",
    ".pv-tools label",
    "#pcsr-samples button",
    "#pcsr-compute span",
    "#pcsr-download",
    ".pv-zoom button[aria-pressed='true']",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_width_and_contrast(browser: Browser, served: Served, width: int, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 844},
        color_scheme="dark" if scheme == "dark" else "light",
        has_touch=width < 700,
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    try:
        open_page(page, served)
        fits = "document.documentElement.scrollWidth <= window.innerWidth"
        assert page.evaluate(fits)
        page.get_by_role("button", name="Coffee").click()
        page.wait_for_function("document.querySelector('.pv').dataset.shown")
        page.get_by_role("button", name="Advanced").click()
        page.get_by_role("button", name="4:1").click()
        assert page.evaluate(fits)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(15, 17, 21)") == (scheme == "dark")
        poor = {word: page.evaluate(CONTRAST, word) for word in WORDS}
        assert {word: value for word, value in poor.items() if value < 4.5} == {}
    finally:
        context.close()

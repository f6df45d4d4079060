"""Widths and colours: nothing is cut off on a phone, and words can be read, light and dark."""

from __future__ import annotations

import itertools

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


@pytest.mark.parametrize("width", [390, 1280])
def test_controls_come_in_the_order_of_use(browser: Browser, served: Served, width: int) -> None:
    """By the tab key; from top to bottom on a phone; beside the result on a desk."""
    context = browser.new_context(viewport={"width": width, "height": 844}, has_touch=width < 700)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    try:
        open_page(page, served)
        page.get_by_role("button", name="Coffee").click()
        page.wait_for_function("document.querySelector('.pv').dataset.shown")
        order = (
            "#pcsr-drop", "#pcsr-samples", "#pcsr-scale", "#pcsr-model", "#pcsr-status",
            "#pcsr-viewer", "#pcsr-compute", "#pcsr-compare", "#pcsr-take", "#pcsr-download",
        )  # fmt: skip
        after = "([a, b]) => !!(document.querySelector(a).compareDocumentPosition("
        after += "document.querySelector(b)) & Node.DOCUMENT_POSITION_FOLLOWING)"
        assert all(page.evaluate(after, pair) for pair in itertools.pairwise(map(str, order)))
        boxes = [box for box in (page.locator(name).bounding_box() for name in order) if box]
        assert len(boxes) == len(order)
        columns = [boxes] if width < 700 else [boxes[:4], boxes[4:]]
        for column in columns:
            tops = [box["y"] for box in column]
            assert tops == sorted(tops)
        if len(columns) == 2:
            left, right = columns
            assert max(box["x"] + box["width"] for box in left) <= min(box["x"] for box in right)
        for name in (".min_value", ".max_value"):  # faster ... sharper
            end = page.locator(f"#pcsr-compute {name}").bounding_box()
            assert end is not None
            assert end["height"] < 40  # in one line
            assert 0 <= end["x"] < end["x"] + end["width"] <= width
    finally:
        context.close()

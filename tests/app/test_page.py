"""How the page is put together; what it does is tried in tests/browser."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest
from gradio.route_utils import delete_files_created_by_app

from pcsr_lightning.app import look
from pcsr_lightning.app.handlers import Handlers
from pcsr_lightning.app.loading import SAMPLES
from pcsr_lightning.app.page import build
from pcsr_lightning.app.visitors import Visitors


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> gr.Blocks:
    folder = tmp_path_factory.mktemp("page")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
    handlers = Handlers(Visitors(folder / "results"), 10**6)
    made = build(handlers, ["one", "two"], "two", folder / "samples")
    patch.undo()
    return made


def test_thumbnails_outlive_the_cleaning(page: gr.Blocks) -> None:
    icons = [block.icon for block in page.blocks.values() if isinstance(block, gr.Button)]
    paths = [Path(icon["path"]) for icon in icons if icon is not None]
    assert len(paths) == len(SAMPLES)
    delete_files_created_by_app(page, None)
    assert all(path.exists() for path in paths)


def test_computing_is_one_at_a_time_and_asking_never_waits(page: gr.Blocks) -> None:
    events = list(page.fns.values())
    computing = [e for e in events if e.name in ("upscale", "compare")]
    asking = [e for e in events if e.name == "want"]
    assert len(computing) == 2 * len(asking) > 0
    assert {(e.concurrency_id, e.concurrency_limit, e.queue) for e in computing} == {
        ("compute", 1, True)
    }
    assert {e.queue for e in asking} == {False}
    assert not page.analytics_enabled
    assert page.delete_cache == (300, 600)


def test_fonts_are_the_systems() -> None:
    theme = look.theme()
    fonts = [*theme._font, *theme._font_mono]
    assert fonts
    assert not any(isinstance(font, gr.themes.GoogleFont) for font in fonts)
    assert theme._stylesheets == []
    for name in ("page.css", "viewer.html", "viewer.js"):
        assert "//" not in look.text(name).replace("// ", "")

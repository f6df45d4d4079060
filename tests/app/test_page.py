"""How the page is put together; what it does is tried in tests/browser."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
import torch
from gradio.route_utils import delete_files_created_by_app

from pcsr_lightning.app import look
from pcsr_lightning.app.handlers import Handlers
from pcsr_lightning.app.loading import SAMPLES
from pcsr_lightning.app.page import build
from pcsr_lightning.app.visitors import BY_BUDGET, Visitors
from pcsr_lightning.images import Picture, write


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


def test_a_refused_picture_stays_told_when_the_one_before_it_fails_too(tmp_path: Path) -> None:
    handlers = Handlers(Visitors(tmp_path), 1_500_000)
    visitor = SimpleNamespace(session_hash="visitor")
    controls = ("fsrcnn-pcsr-x4", 4.0, 70.0, BY_BUDGET, 0.0)

    def bring(side: int) -> tuple[str, str]:
        """What the status says at first, and after the events that follow an upload."""
        path = tmp_path / f"{side}.png"
        write(Picture(torch.zeros(3, side, side)), path)
        _, first, _ = handlers.upload(str(path), visitor)
        handlers.want(*controls, visitor)
        return first, handlers.upscale(*controls, visitor)[0]

    assert "400 x 400" in bring(400)[0]
    first, last = bring(1300)
    assert "more than the 1,500,000" in first
    assert last == first
    handlers.want(*controls[:2], 60.0, *controls[3:], visitor)
    assert "scale 3 would do" in handlers.upscale(*controls[:2], 60.0, *controls[3:], visitor)[0]


def test_fonts_are_the_systems() -> None:
    theme = look.theme()
    fonts = [*theme._font, *theme._font_mono]
    assert fonts
    assert not any(isinstance(font, gr.themes.GoogleFont) for font in fonts)
    assert theme._stylesheets == []
    for name in ("page.css", "viewer.html", "viewer.js"):
        assert "//" not in look.text(name).replace("// ", "")

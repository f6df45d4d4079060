"""How the page is put together; what it does is tried in tests/browser."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch
from gradio.route_utils import delete_files_created_by_app

from pcsr_lightning.app import look, work
from pcsr_lightning.app.choices import AUTOMATIC, BY_BUDGET, BY_SECONDS
from pcsr_lightning.app.handlers import Handlers
from pcsr_lightning.app.loading import SAMPLES
from pcsr_lightning.app.page import build
from pcsr_lightning.app.visitors import Visitors
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.images import Picture, write
from pcsr_lightning.inference import RoutingConfig, measuring, time_model

MODEL = "fsrcnn-pcsr-x4"
MODELS = (MODEL, "carn-pcsr-multi")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> gr.Blocks:
    folder = tmp_path_factory.mktemp("page")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
    handlers = Handlers(Visitors(folder / "results"), 10**6, MODELS)
    made = build(handlers, {name: name for name in MODELS}, MODEL, folder / "samples")
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
    # One more: the button that asks for the comparison.
    assert len(computing) == 2 * len(asking) + 1 > 1
    assert {(e.concurrency_id, e.concurrency_limit, e.queue) for e in computing} == {
        ("compute", 1, True)
    }
    assert {e.queue for e in asking} == {False}
    # Else what comes while another is under way would be dropped.
    told = [e for e in events if e.fn is not None and e.name != "leave"]
    assert {e.trigger_mode for e in told} == {"multiple"}
    assert not page.analytics_enabled
    assert page.delete_cache == (300, 600)


class Asking:
    """A visitor with one of the samples, as the browser's events come."""

    def __init__(self, folder: Path, max_pixels: int = 10**7) -> None:
        self.handlers = Handlers(Visitors(folder), max_pixels, MODELS)
        self.request = SimpleNamespace(session_hash="visitor")
        self.visitor = self.handlers.visitors.of("visitor")
        self.handlers.sample("coffee", self.request)
        self.time = 0.0

    def want(self, *controls: object) -> Any:
        """The controls' values; the last ones may be left out."""
        self.time += 1
        left_out = [None] * (6 - len(controls))
        return self.handlers.want(*controls, *left_out, self.time, self.request)

    def ask(self, *controls: object) -> tuple[Any, Any]:
        return self.want(*controls), self.handlers.upscale(self.request)


def test_a_refused_picture_stays_told_when_the_one_before_it_fails_too(tmp_path: Path) -> None:
    asking, controls = Asking(tmp_path, 1_500_000), (MODEL, 4.0, 70.0, BY_BUDGET, 0.0)

    def bring(side: int) -> tuple[str, str]:
        """What the status says at first, and after the events that follow an upload."""
        path = tmp_path / f"{side}.png"
        write(Picture(torch.zeros(3, side, side)), path)
        _, first, _, _ = asking.handlers.upload([str(path)], asking.request)
        _, (last, *_) = asking.ask(*controls)
        return first, last

    assert "400 x 400" in bring(400)[0]
    first, last = bring(1300)
    assert "more than the 1,500,000" in first
    assert last == first
    _, (said, *_) = asking.ask(*controls[:2], 60.0, *controls[3:])
    assert "scale 3 would do" in said


def test_the_slider_starts_at_the_automatic_choice_and_ends_at_the_floor(tmp_path: Path) -> None:
    """At x2 the floor is near 80 %: a budget of 70 % would be all light."""
    asking, multi = Asking(tmp_path), "carn-pcsr-multi"
    _, (_, _, slider, *_) = asking.ask(multi, 2.0, 10.0, AUTOMATIC, 0.0)
    session, run = asking.visitor.session, asking.visitor.run
    assert session is not None
    floor = math.ceil(100 * session.macs.all_light / session.macs.all_heavy)
    assert 70 < floor < 85
    assert floor == slider["minimum"] < slider["value"] <= 100
    assert torch.equal(run.result.assignment, session.run(RoutingConfig("adaptive")).assignment)
    assert run.result.shares[0] > 0.1
    # A budget that was sent before the range changed is the floor.
    _, (_, _, slider, view, *_) = asking.ask(multi, 2.0, 70.0, BY_BUDGET, 0.0)
    assert (slider["minimum"], slider["value"]) == (floor, floor)
    assert view["label"] == f"PCSR, {floor} %"
    _, (_, _, slider, *_) = asking.ask(multi, 4.0, 90.0, BY_BUDGET, 0.0)
    assert slider["minimum"] < 60
    assert "value" not in slider  # where the visitor has left it, perhaps by now elsewhere
    # Such values come unchecked.
    for model, way in (("/etc/passwd", BY_BUDGET), (multi, "nobody's")):
        with pytest.raises(ConfigError, match=model if way == BY_BUDGET else way):
            asking.ask(model, 2.0, 70.0, way, 0.0)


def test_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(time_model, "_KNOWN", {})
    times = {"overhead": 0.0, "backbone": 0.0, "classifier": 0.0, "classes_M": (4e-6, 1e-6)}
    monkeypatch.setattr(measuring, "measure", lambda *_: times)
    asking = Asking(tmp_path / "page")
    _, (_, _, slider, view, details, *_) = asking.ask(MODEL, 4.0, None, BY_SECONDS, None, 0.6)
    run, pixels = asking.visitor.run, 600 * 400
    expected = (0.6 - 1e-6 * pixels) / (3e-6 * pixels)
    assert run.result.shares[0] == pytest.approx(expected, abs=0.01)
    assert view["label"] == "PCSR, 0.6 s"
    assert slider["minimum"] < slider["value"] < 100  # a budget goes on from here
    assert "The least" not in details
    _, (_, _, _, _, details, *_) = asking.ask(MODEL, 4.0, None, BY_SECONDS, None, 0.1)
    assert "The least this model can do is 0.240 s here." in details
    assert asking.visitor.run.result.shares == (0, 1)
    _, (said, *_) = asking.ask(MODEL, 4.0, None, BY_SECONDS, None, -1.0)
    assert "seconds must be a number of seconds above 0" in said


def test_what_was_refused_is_forgotten_when_something_else_is_wanted(tmp_path: Path) -> None:
    asking = Asking(tmp_path, 400 * 300 * 2)
    _, (said, remedy, *_) = asking.ask(MODEL, 8.0, 0.0, AUTOMATIC, 0.0)
    assert 'role="alert"' in said
    assert (remedy["value"], remedy["visible"]) == ("Use scale 4", True)
    scale, _, said, remedy = asking.handlers.use_remedy(asking.request)
    assert (scale, remedy["visible"]) == (4.0, False)
    assert "alert" not in said
    (said, remedy), (done, *_) = asking.ask(MODEL, scale, 0.0, AUTOMATIC, 0.0)
    assert not remedy["visible"]
    assert "alert" not in said + done
    # A refused file stays told until something else is wanted.
    path = tmp_path / "bad.png"
    path.write_bytes(b"words")
    _, said, _, _ = asking.handlers.upload([str(path)], asking.request)
    assert "bad.png" in said
    assert asking.want(MODEL, 4.0, 0.0, AUTOMATIC, 0.0)[0] == gr.skip()
    said, *_ = asking.want(MODEL, 3.0, 0.0, AUTOMATIC, 0.0)
    assert "alert" not in said
    assert "coffee" in said


def test_saying_what_is_wanted_waits_for_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a request that waited could take the place of a newer one."""
    asking = Asking(tmp_path)

    def slow(_: str) -> None:
        pytest.fail("a model is loaded")

    monkeypatch.setattr(work, "model_named", slow)
    for way in (AUTOMATIC, BY_BUDGET):
        asking.want(MODEL, 4.0, 80.0, way, 0.0)
        assert asking.visitor.wanted[1].way == way


def test_the_old_picture_is_not_upscaled_for_the_new_one(tmp_path: Path) -> None:
    asking, controls = Asking(tmp_path), (MODEL, 4.0, 0.0, AUTOMATIC, 0.0)
    asking.visitor.number = asking.visitor.bring()  # it waits for the old one's work to stop
    asking.ask(*controls)
    assert asking.visitor.run is None
    asking.visitor.loaded_number = asking.visitor.number
    asking.ask(*controls)
    assert asking.visitor.run is not None


def test_a_download_does_not_wait_for_who_computes(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    asking.ask(MODEL, 4.0, 0.0, AUTOMATIC, 0.0)
    with asking.visitor.lock, ThreadPoolExecutor(1) as pool:
        file, _, _ = pool.submit(asking.handlers.download, "PNG", 90, asking.request).result(60)
    assert file["name"] == "coffee_x4.png"


def test_all_heavy_is_computed_when_asked_for_and_again_if_interrupted(tmp_path: Path) -> None:
    asking, controls = Asking(tmp_path), (MODEL, 4.0, 0.0, AUTOMATIC, 0.0)
    asking.ask(*controls)
    asking.handlers.compare(asking.request)
    assert asking.visitor.heavy is None
    asking.handlers.ask_to_compare(asking.request)
    other = (MODEL, 4.0, 60.0, BY_BUDGET, 0.0)
    asking.want(*other)
    asking.handlers.compare(asking.request)
    assert asking.visitor.heavy is None
    asking.handlers.upscale(asking.request)
    _, _, button = asking.handlers.compare(asking.request)
    assert asking.visitor.heavy is not None
    assert not button["interactive"]


def test_fonts_are_the_systems() -> None:
    theme = look.theme()
    fonts = [*theme._font, *theme._font_mono]
    assert fonts
    assert not any(isinstance(font, gr.themes.GoogleFont) for font in fonts)
    assert theme._stylesheets == []
    for name in ("page.css", "viewer.html", "viewer.js"):
        assert "//" not in look.text(name).replace("// ", "")

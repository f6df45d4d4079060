"""The page: which components there are, and which event calls what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from pcsr_lightning.app import look
from pcsr_lightning.app.choices import BY_BUDGET, BY_K, BY_SECONDS
from pcsr_lightning.app.components import Parts, bring, choose, result
from pcsr_lightning.app.events import Answer
from pcsr_lightning.app.handlers import Handlers
from pcsr_lightning.app.work import floor_percent, models_of

CLEAN_EVERY, UPLOADS_KEPT = 300, 600
"""Seconds: an upload is moved to its visitor as soon as it is there; this is for the rest."""
AT_ONCE: dict[str, Any] = {
    "queue": False,
    "trigger_mode": "multiple",
    "show_progress": "hidden",
    "api_visibility": "private",
}
"""Events that are answered at once. By default Gradio drops an event that comes while the one
before it is under way, such as the last of a slider's moves."""
IN_TURN: dict[str, Any] = {
    "concurrency_id": "compute",
    "concurrency_limit": 1,
    "trigger_mode": "multiple",
    "show_progress": "full",
    "api_visibility": "private",
}
"""Events that compute: one at a time, whoever asked. A visitor's second is let in while the first
runs, which then stops."""
AS_SENT: dict[str, Any] = {**AT_ONCE, "preprocess": False}
"""With values as they were sent, see :meth:`Events.choices`."""
IN_ORDER: dict[str, Any] = {
    **AS_SENT,
    "js": "(...values) => [...values.slice(0, -1), performance.now()]",
}
"""With the browser's time after the controls' values, since requests may come in another order."""
_FETCH = """(file) => {
  if (!file) return;
  const link = document.createElement("a");
  link.href = file.url;
  link.download = file.name;
  document.body.append(link);
  link.click();
  link.remove();
}"""


def build(handlers: Handlers, models: Mapping[str, str], model: str, folder: Path) -> gr.Blocks:
    """The whole page.

    Args:
        handlers: what events do.
        models: to choose from, and what they are called.
        model: the one chosen at first.
        folder: for the samples' thumbnails.
    """
    page = gr.Blocks(
        title="PCSR",
        analytics_enabled=False,
        delete_cache=(CLEAN_EVERY, UPLOADS_KEPT),
        fill_width=True,
    )
    with page:
        gr.HTML(look.HEAD, elem_id="pcsr-head")
        # Side by side on a desk, one below the other in this order on a phone: see page.css.
        with gr.Row(equal_height=False, elem_id="pcsr-main"):
            with gr.Column(elem_id="pcsr-bring", min_width=0):
                parts = bring(folder)
            with gr.Column(elem_id="pcsr-choose", min_width=0):
                parts |= choose(models, model, handlers.max_pixels)
            with gr.Column(elem_id="pcsr-result", min_width=0):
                first, _ = models_of(model).first
                parts |= result(floor_percent(first, (100, 100), (400, 400)))
        made = Parts(**parts)
        _wire_requests(made, handlers)
        _wire_comparisons(made, handlers)
        _wire_files(made, handlers)
        page.unload(handlers.leave)
    return page


def _wire_requests(parts: Parts, handlers: Handlers) -> None:
    """Every change says what is wanted at once; the work then waits for its turn."""
    shown = [parts.drop, parts.status, parts.scale, parts.remedy]
    starts = [parts.drop.upload(handlers.upload, parts.drop, shown, **AT_ONCE)]
    for stem, button in parts.samples.items():
        starts.append(button.click(_sampler(handlers, stem), None, shown, **AT_ONCE))
    # Whoever moves a slider wants what it says.
    ways = ((parts.compute, BY_BUDGET), (parts.k, BY_K), (parts.seconds, BY_SECONDS))
    for slider, way in ways:
        starts.append(slider.input(None, None, parts.way, js=f"() => '{way}'", **AT_ONCE))
    starts.append(parts.overview.select(handlers.look, None, None, **AT_ONCE))
    remedied = [parts.scale, parts.format, parts.status, parts.remedy]
    starts.append(parts.remedy.click(handlers.use_remedy, None, remedied, **AT_ONCE))
    want = handlers.want, [*parts.controls, parts.asked], [parts.status, parts.remedy]
    asked = [start.then(*want, **IN_ORDER) for start in starts]
    for control in (parts.scale, parts.way, parts.model):
        asked.append(control.input(*want, **IN_ORDER))
    results = [
        parts.status, parts.remedy, parts.compute, parts.viewer, parts.details,
        parts.reference_note, parts.compare, parts.download,
    ]  # fmt: skip
    for event in asked:
        upscaled = event.then(handlers.upscale, None, results, **_in_turn(parts))
        beside = upscaled.then(handlers.beside, parts.with_format, parts.beside, **AS_SENT)
        # Goes on with a comparison that was asked for, and interrupted.
        beside.then(handlers.compare, None, parts.compared, **_in_turn(parts))


def _wire_comparisons(parts: Parts, handlers: Handlers) -> None:
    compared = parts.compare.click(handlers.ask_to_compare, None, None, **AT_ONCE)
    compared.then(handlers.compare, None, parts.compared, **_in_turn(parts))
    referred = [parts.reference, parts.reference_note, parts.details, parts.viewer]
    parts.reference.upload(handlers.reference, parts.reference, referred, **AT_ONCE)


def _wire_files(parts: Parts, handlers: Handlers) -> None:
    """The result, and whole files in the background."""
    parts.format.change(_with_quality, parts.format, parts.quality, **AT_ONCE)
    for control in (parts.format, parts.quality):
        control.input(handlers.beside, parts.with_format, parts.beside, **AS_SENT)
    taken = [parts.format, parts.quality]
    told = [parts.file, parts.status, parts.remedy]
    fetched = parts.download.click(handlers.download, taken, told, **AT_ONCE)
    fetched.then(None, parts.file, None, js=_FETCH)
    buttons = [parts.make, parts.cancel]
    begun = parts.make.click(handlers.begin_files, parts.with_format, buttons, **AS_SENT)
    in_background = {**IN_TURN, "concurrency_id": "files", "show_progress_on": parts.made}
    begun.then(handlers.make_files, None, [parts.made, *buttons], **in_background)
    parts.cancel.click(handlers.cancel_files, None, None, **AT_ONCE)


def _in_turn(parts: Parts) -> dict[str, Any]:
    return {**IN_TURN, "show_progress_on": parts.status}


def _sampler(handlers: Handlers, stem: str) -> Callable[[gr.Request], Answer]:
    """What a sample's button does."""

    def chosen(request: gr.Request) -> Answer:
        return handlers.sample(stem, request)

    return chosen


def _with_quality(format: str) -> Any:
    """PNG loses nothing, and has no quality."""
    return gr.update(visible=format != "PNG")

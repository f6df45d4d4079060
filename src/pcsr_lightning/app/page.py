"""The page: which components there are, and which event calls what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pyvips

from pcsr_lightning.app import look, texts
from pcsr_lightning.app.handlers import Answer, Handlers
from pcsr_lightning.app.loading import LARGEST_SCALE, SAMPLES, SMALLEST_SCALE, sample_file
from pcsr_lightning.app.visitors import AUTOMATIC, BY_BUDGET, BY_K
from pcsr_lightning.app.work import FORMATS, floor_percent
from pcsr_lightning.images import SUFFIXES

CLEAN_EVERY, UPLOADS_KEPT = 300, 600
"""Seconds: an upload is deleted as soon as it is read; this is for those that never were."""
THUMBNAIL = 220
AT_ONCE: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
}
"""Events that are answered at once."""
IN_TURN: dict[str, Any] = {
    "concurrency_id": "compute",
    "concurrency_limit": 1,
    "trigger_mode": "multiple",
    "show_progress": "full",
    "api_visibility": "private",
}
"""Events that compute: one at a time, whoever asked. A visitor's second is let in while the first
runs, which then stops."""
_SAMPLES_CAPTION = '<p class="pcsr-caption">Or a sample, shrunk to a quarter</p>'
_FETCH = """(file) => {
  if (!file) return;
  const link = document.createElement("a");
  link.href = file.url;
  link.download = file.name;
  document.body.append(link);
  link.click();
  link.remove();
}"""


@dataclass
class Parts:
    """The components that events read and write."""

    drop: gr.File
    samples: dict[str, gr.Button]
    overview: gr.Image
    scale: gr.Slider
    model: gr.Dropdown
    way: gr.Radio
    k: gr.Slider
    reference: gr.File
    reference_note: gr.HTML
    status: gr.HTML
    remedy: gr.Button
    viewer: gr.HTML
    compute: gr.Slider
    details: gr.HTML
    compare: gr.Button
    format: gr.Radio
    quality: gr.Slider
    download: gr.Button
    file: gr.JSON
    panel: gr.Column
    made: gr.HTML
    make: gr.Button
    cancel: gr.Button
    command: gr.Textbox

    @property
    def controls(self) -> list[Any]:
        """In the order in which handlers take them."""
        return [self.model, self.scale, self.compute, self.way, self.k]


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
                parts = _bring(folder)
            with gr.Column(elem_id="pcsr-choose", min_width=0):
                parts |= _choose(models, model, handlers.max_pixels)
            with gr.Column(elem_id="pcsr-result", min_width=0):
                parts |= _result(floor_percent(model, (100, 100), (400, 400)))
        _wire(Parts(**parts), handlers)
        page.unload(handlers.leave)
    return page


def _bring(folder: Path) -> dict[str, Any]:
    """The input: a drop zone and samples."""
    drop = gr.File(
        label="Your pictures",
        file_types=list(SUFFIXES),
        file_count="multiple",
        height=104,
        elem_id="pcsr-drop",
    )
    gr.HTML(_SAMPLES_CAPTION, elem_classes="pcsr-plain")
    with gr.Row(elem_id="pcsr-samples"):
        samples = {stem: _sample_button(stem, name, folder) for stem, name in SAMPLES.items()}
    overview = gr.Image(
        label="Click where to look", visible=False, interactive=False, buttons=[],
        type="filepath", elem_id="pcsr-overview",
    )  # fmt: skip
    return {"drop": drop, "samples": samples, "overview": overview}


def _choose(models: Mapping[str, str], model: str, max_pixels: int) -> dict[str, Any]:
    """The choices: scale, model and routing."""
    scale = gr.Slider(
        SMALLEST_SCALE,
        LARGEST_SCALE,
        value=4,
        step=0.1,
        label="Scale",
        buttons=[],
        info=f"Results of up to {max_pixels:,} pixels",
        elem_id="pcsr-scale",
    )
    chooser = gr.Dropdown(
        [(label, name) for name, label in models.items()],
        value=model,
        label="Model",
        filterable=False,
        elem_id="pcsr-model",
    )
    with gr.Accordion("Advanced", open=False):
        way = gr.Radio([AUTOMATIC, BY_BUDGET, BY_K], value=AUTOMATIC, label="Pixels chosen by")
        k = gr.Slider(
            -3,
            3,
            value=0,
            step=0.05,
            label="k",
            buttons=[],
            info="Lower sends more pixels to the heavy upsampler; 0 takes the likeliest class",
        )
    return {
        "scale": scale,
        "model": chooser,
        "way": way,
        "k": k,
    }


def _result(floor: int) -> dict[str, Any]:
    """The result: status, viewer, compute slider, details, comparisons and download."""
    status = gr.HTML(texts.EMPTY, elem_id="pcsr-status")
    remedy = gr.Button("", visible=False, elem_id="pcsr-remedy")
    viewer = gr.HTML(
        None,
        html_template=look.text("viewer.html"),
        js_on_load=look.text("viewer.js"),
        apply_default_css=False,
        elem_id="pcsr-viewer",
    )
    compute = gr.Slider(
        floor,
        100,
        value=100,
        step=1,
        label="Faster or sharper",
        buttons=[],
        info="Percent of the cost of treating every pixel as a hard one; the hardest come first",
        elem_id="pcsr-compute",
    )
    details = gr.HTML("", elem_id="pcsr-facts")
    compare = gr.Button("Compare with all-heavy", interactive=False, elem_id="pcsr-compare")
    with gr.Accordion("Compare with a reference (PSNR)", open=False):
        reference = gr.File(
            label="A picture of the result's size",
            file_types=list(SUFFIXES),
            height=104,
            elem_id="pcsr-reference",
        )
        reference_note = gr.HTML(elem_id="pcsr-reference-note")
    with gr.Row(equal_height=True, elem_id="pcsr-take"):
        format = gr.Radio(list(FORMATS), value="PNG", label="Format", min_width=0)
        quality = gr.Slider(
            1, 100, value=90, step=1, label="Quality", buttons=[], visible=False, min_width=0
        )
    download = gr.Button("Download", variant="primary", interactive=False, elem_id="pcsr-download")
    with gr.Column(visible=False, elem_id="pcsr-files") as panel:
        made = gr.HTML("", elem_id="pcsr-made")
        with gr.Row():
            make = gr.Button("", elem_id="pcsr-make")
            cancel = gr.Button("Cancel", visible=False, elem_id="pcsr-cancel")
        command = gr.Textbox(
            label="Or on your own computer", interactive=False, buttons=["copy"],
            elem_id="pcsr-command",
        )  # fmt: skip
    # Carries the file's address to the browser.
    file = gr.JSON(visible="hidden")
    return {
        "status": status,
        "remedy": remedy,
        "viewer": viewer,
        "compute": compute,
        "details": details,
        "compare": compare,
        "reference": reference,
        "reference_note": reference_note,
        "format": format,
        "quality": quality,
        "download": download,
        "file": file,
        "panel": panel,
        "made": made,
        "make": make,
        "cancel": cancel,
        "command": command,
    }


def _wire(parts: Parts, handlers: Handlers) -> None:
    """Every change says what is wanted at once; the work then waits for its turn."""
    shown = [parts.drop, parts.status, parts.scale, parts.remedy]
    starts = [parts.drop.upload(handlers.upload, parts.drop, shown, **AT_ONCE)]
    for stem, button in parts.samples.items():
        starts.append(button.click(_sampler(handlers, stem), None, shown, **AT_ONCE))
    # Whoever moves a slider wants what it says.
    for slider, way in ((parts.compute, BY_BUDGET), (parts.k, BY_K)):
        starts.append(slider.input(None, None, parts.way, js=f"() => '{way}'", **AT_ONCE))
    starts.append(parts.overview.select(handlers.look, None, None, **AT_ONCE))
    remedied = [parts.scale, parts.format, parts.status, parts.remedy]
    starts.append(parts.remedy.click(handlers.use_remedy, None, remedied, **AT_ONCE))
    said = [parts.status, parts.remedy, parts.compute]
    # Values come as they were sent, see Handlers._asked.
    wants = {**AT_ONCE, "preprocess": False}
    asked = [start.then(handlers.want, parts.controls, said, **wants) for start in starts]
    for control in (parts.scale, parts.way, parts.model):
        asked.append(control.input(handlers.want, parts.controls, said, **wants))
    in_turn = {**IN_TURN, "show_progress_on": parts.status}
    shows = [parts.viewer, parts.details]
    results = [*said, *shows, parts.reference_note, parts.compare, parts.download]
    beside = [*shows, parts.compare]
    whole = [parts.overview, parts.panel, parts.made, parts.make, parts.command, parts.download]
    with_format = [*parts.controls, parts.format, parts.quality]
    for event in asked:
        upscaled = event.then(handlers.upscale, None, results, **in_turn)
        # Goes on with a comparison that was asked for, and interrupted.
        upscaled.then(handlers.compare, None, beside, **in_turn)
        upscaled.then(handlers.beside, with_format, whole, **wants)
    buttons = [parts.make, parts.cancel]
    begun = parts.make.click(handlers.begin_files, with_format, buttons, **wants)
    in_background = {**IN_TURN, "concurrency_id": "files", "show_progress_on": parts.made}
    begun.then(handlers.make_files, None, [parts.made, *buttons], **in_background)
    parts.cancel.click(handlers.cancel_files, None, None, **AT_ONCE)
    compared = parts.compare.click(handlers.ask_to_compare, None, None, **AT_ONCE)
    compared.then(handlers.compare, None, beside, **in_turn)
    referred = [parts.reference, parts.reference_note, parts.details, parts.viewer]
    parts.reference.upload(handlers.reference, parts.reference, referred, **AT_ONCE)
    parts.format.input(_with_quality, parts.format, parts.quality, **AT_ONCE)
    taken = [parts.format, parts.quality]
    told = [parts.file, parts.status, parts.remedy]
    fetched = parts.download.click(handlers.download, taken, told, **AT_ONCE)
    fetched.then(None, parts.file, None, js=_FETCH)


def _sampler(handlers: Handlers, stem: str) -> Callable[[gr.Request], Answer]:
    """What a sample's button does."""

    def chosen(request: gr.Request) -> Answer:
        return handlers.sample(stem, request)

    return chosen


def _with_quality(format: str) -> Any:
    """PNG loses nothing, and has no quality."""
    return gr.update(visible=format != "PNG")


def _sample_button(stem: str, name: str, folder: Path) -> gr.Button:
    button = gr.Button(name, icon=_thumbnail(stem, folder), size="sm", min_width=0)
    if isinstance(button.icon, dict):
        # Else it would be deleted with the uploads that are too old.
        button.keep_in_cache.add(button.icon["path"])
    return button


def _thumbnail(stem: str, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.jpg"
    pyvips.Image.thumbnail(str(sample_file(stem)), THUMBNAIL).jpegsave(str(path), Q=85)
    return str(path)

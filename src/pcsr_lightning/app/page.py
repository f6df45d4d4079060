"""The page: which components there are, and which event calls what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pyvips

from pcsr_lightning.app import look, texts
from pcsr_lightning.app.handlers import Answer, Handlers
from pcsr_lightning.app.loading import LARGEST_SCALE, SAMPLES, SMALLEST_SCALE, sample_file
from pcsr_lightning.app.visitors import ADAPTIVE, BY_BUDGET, BY_K, FIRST_COMPUTE
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
    scale: gr.Slider
    model: gr.Dropdown
    way: gr.Radio
    k: gr.Slider
    reference: gr.File
    reference_note: gr.HTML
    status: gr.HTML
    viewer: gr.HTML
    compute: gr.Slider
    details: gr.HTML
    download: gr.Button
    file: gr.JSON

    @property
    def controls(self) -> list[Any]:
        """In the order in which handlers take them."""
        return [self.model, self.scale, self.compute, self.way, self.k]


def build(handlers: Handlers, models: Sequence[str], model: str, folder: Path) -> gr.Blocks:
    """The whole page.

    Args:
        handlers: what events do.
        models: to choose from.
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
            with gr.Column(elem_id="pcsr-result", min_width=0):
                parts |= _result()
            with gr.Column(elem_id="pcsr-choose", min_width=0):
                parts |= _choose(models, model, handlers.max_pixels)
        _wire(Parts(**parts), handlers)
        page.unload(handlers.leave)
    return page


def _bring(folder: Path) -> dict[str, Any]:
    """The input: a drop zone and samples."""
    drop = gr.File(
        label="Your picture",
        file_types=list(SUFFIXES),
        height=104,
        elem_id="pcsr-drop",
    )
    gr.HTML(_SAMPLES_CAPTION, elem_classes="pcsr-plain")
    with gr.Row(elem_id="pcsr-samples"):
        samples = {stem: _sample_button(stem, name, folder) for stem, name in SAMPLES.items()}
    return {"drop": drop, "samples": samples}


def _choose(models: Sequence[str], model: str, max_pixels: int) -> dict[str, Any]:
    """The choices: scale, model, routing, and a picture to compare with."""
    scale = gr.Slider(
        SMALLEST_SCALE,
        LARGEST_SCALE,
        value=4,
        step=0.1,
        label="Scale",
        buttons=[],
        info=f"Results of up to {max_pixels:,} pixels",
    )
    chooser = gr.Dropdown(list(models), value=model, label="Model", filterable=False)
    with gr.Accordion("Advanced", open=False):
        way = gr.Radio([BY_BUDGET, BY_K, ADAPTIVE], value=BY_BUDGET, label="Pixels chosen by")
        k = gr.Slider(
            -3,
            3,
            value=0,
            step=0.05,
            label="k",
            buttons=[],
            info="Lower sends more pixels to the heavy upsampler; 0 takes the likeliest class",
            interactive=False,
        )
    with gr.Accordion("Compare with a reference (PSNR)", open=False):
        reference = gr.File(
            label="A picture of the result's size",
            file_types=list(SUFFIXES),
            height=104,
            elem_id="pcsr-reference",
        )
        reference_note = gr.HTML(elem_id="pcsr-reference-note")
    return {
        "scale": scale,
        "model": chooser,
        "way": way,
        "k": k,
        "reference": reference,
        "reference_note": reference_note,
    }


def _result() -> dict[str, Any]:
    """The result: status, viewer, compute slider, details and download."""
    status = gr.HTML(texts.EMPTY, elem_id="pcsr-status")
    viewer = gr.HTML(
        None,
        html_template=look.text("viewer.html"),
        js_on_load=look.text("viewer.js"),
        apply_default_css=False,
        elem_id="pcsr-viewer",
    )
    compute = gr.Slider(
        0,
        100,
        value=FIRST_COMPUTE,
        step=1,
        label="Compute, % of all-heavy",
        buttons=[],
        info="What the picture may cost at most; the hardest pixels are paid for first",
        elem_id="pcsr-compute",
    )
    details = gr.HTML("", elem_id="pcsr-facts")
    download = gr.Button(
        "Download PNG", variant="primary", interactive=False, elem_id="pcsr-download"
    )
    # Carries the file's address to the browser.
    file = gr.JSON(visible="hidden")
    return {
        "status": status,
        "viewer": viewer,
        "compute": compute,
        "details": details,
        "download": download,
        "file": file,
    }


def _wire(parts: Parts, handlers: Handlers) -> None:
    """Every change says what is wanted at once; the work then waits for its turn."""
    shown = [parts.drop, parts.status, parts.scale]
    starts = [parts.drop.upload(handlers.upload, parts.drop, shown, **AT_ONCE)]
    for stem, button in parts.samples.items():
        starts.append(button.click(_sampler(handlers, stem), None, shown, **AT_ONCE))
    starts.append(parts.way.input(_switched, parts.way, [parts.compute, parts.k], **AT_ONCE))
    asked = [start.then(handlers.want, parts.controls, None, **AT_ONCE) for start in starts]
    for control in (parts.scale, parts.compute, parts.k, parts.model):
        asked.append(control.input(handlers.want, parts.controls, None, **AT_ONCE))
    in_turn = {**IN_TURN, "show_progress_on": parts.status}
    results = [parts.status, parts.viewer, parts.details, parts.download]
    for event in asked:
        upscaled = event.then(handlers.upscale, parts.controls, results, **in_turn)
        upscaled.then(handlers.compare, parts.controls, [parts.viewer, parts.details], **in_turn)
    compared = [parts.reference, parts.reference_note, parts.details, parts.viewer]
    parts.reference.upload(handlers.reference, parts.reference, compared, **AT_ONCE)
    fetched = parts.download.click(handlers.download, None, [parts.file, parts.status], **AT_ONCE)
    fetched.then(None, parts.file, None, js=_FETCH)


def _sampler(handlers: Handlers, stem: str) -> Callable[[gr.Request], Answer]:
    """What a sample's button does."""

    def chosen(request: gr.Request) -> Answer:
        return handlers.sample(stem, request)

    return chosen


def _switched(way: str) -> Answer:
    """Only the slider that counts can be moved."""
    return gr.update(interactive=way == BY_BUDGET), gr.update(interactive=way == BY_K)


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

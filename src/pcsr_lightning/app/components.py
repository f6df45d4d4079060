"""The page's components: what it looks like before anything happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pyvips

from pcsr_lightning.app import look, texts
from pcsr_lightning.app.choices import AUTOMATIC, DEFAULT_SCALE, DEFAULT_SECONDS, WAYS
from pcsr_lightning.app.loading import LARGEST_SCALE, SAMPLES, SMALLEST_SCALE, sample_file
from pcsr_lightning.app.result_files import FORMATS
from pcsr_lightning.images import SUFFIXES

THUMBNAIL = 220
_SAMPLES_CAPTION = '<p class="pcsr-caption">Or a sample, shrunk to a quarter</p>'


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
    seconds: gr.Slider
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
    asked: gr.Number

    @property
    def controls(self) -> list[Any]:
        """In the order in which handlers take them."""
        return [self.model, self.scale, self.compute, self.way, self.k, self.seconds]

    @property
    def with_format(self) -> list[Any]:
        """Those, and what files are to be."""
        return [*self.controls, self.format, self.quality]

    @property
    def beside(self) -> list[Any]:
        """What there is besides a result in view."""
        return [self.overview, self.panel, self.made, self.make, self.command, self.download]

    @property
    def compared(self) -> list[Any]:
        """What shows the all-heavy run."""
        return [self.viewer, self.details, self.compare]


def bring(folder: Path) -> dict[str, Any]:
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


def choose(models: Mapping[str, str], model: str, max_pixels: int) -> dict[str, Any]:
    """The choices: scale, model and routing."""
    scale = gr.Slider(
        SMALLEST_SCALE,
        LARGEST_SCALE,
        value=DEFAULT_SCALE,
        step=0.1,
        label="Scale",
        buttons=[],
        info=f"Results of up to {max_pixels / 1e6:,.4g} megapixels",
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
        way = gr.Radio(WAYS, value=AUTOMATIC, label="Pixels chosen by")
        k = gr.Slider(
            -3,
            3,
            value=0,
            step=0.05,
            label="k",
            buttons=[],
            info="Lower sends more pixels to the heavy upsampler; 0 takes the likeliest class",
        )
        seconds = gr.Slider(
            0.1,
            60,
            value=DEFAULT_SECONDS,
            step=0.1,
            label="seconds",
            buttons=[],
            info="The best result that the computer behind this page finishes in that time, which "
            "is measured once for a model",
        )
    return {
        "scale": scale,
        "model": chooser,
        "way": way,
        "k": k,
        "seconds": seconds,
    }


def result(floor: int) -> dict[str, Any]:
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
    # Carry the file's address to the browser, and the time of a request from it.
    file, asked = gr.JSON(visible="hidden"), gr.Number(visible="hidden")
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
        "asked": asked,
    }


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

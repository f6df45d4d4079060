"""Theme and styles: the system's own fonts and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_MONO = ["ui-monospace", "Menlo", "Consolas", "monospace"]
_HERE = Path(__file__).parent

HEAD = """
<div class="pcsr-head">
<h1>PCSR</h1>
<p>Super-resolution in which easy pixels are paid for lightly, and hard ones in full.</p>
</div>
"""


def theme() -> gr.themes.Base:
    """Quiet greys and one blue, light and dark."""
    made = gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=_FONTS,
        font_mono=_MONO,
    )
    return made.set(
        body_background_fill="#f6f7f9",
        body_background_fill_dark="#0f1115",
        background_fill_secondary="#eef0f3",
        background_fill_secondary_dark="#15181e",
        body_text_color_subdued="#566171",
        body_text_color_subdued_dark="#a7b0bd",
        block_info_text_color="#566171",
        block_info_text_color_dark="#a7b0bd",
        block_background_fill="#ffffff",
        block_background_fill_dark="#191c22",
        block_border_width="1px",
        block_shadow="none",
        block_label_text_weight="600",
        block_title_text_weight="600",
        color_accent="#2268a2",
        slider_color="#2268a2",
        slider_color_dark="#5aa0d6",
        button_primary_background_fill="#2268a2",
        button_primary_background_fill_dark="#2b78b8",
        button_primary_background_fill_hover="#1b5586",
        button_primary_background_fill_hover_dark="#3a8acb",
        button_primary_text_color="#ffffff",
    )


def text(name: str) -> str:
    """One of the page's own files."""
    return (_HERE / name).read_text(encoding="utf-8")

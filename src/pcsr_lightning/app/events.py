"""What events of the page share: the visitor, what the controls say, and how work reports."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gradio as gr

from pcsr_lightning.app import work
from pcsr_lightning.app.choices import Choices
from pcsr_lightning.app.loading import RefusedError
from pcsr_lightning.app.visitors import Visitor, Visitors
from pcsr_lightning.errors import ConfigError, PCSRError

Answer = tuple[Any, ...]
PROGRESS = gr.Progress()
REPORT_SECONDS = 0.2


@dataclass(frozen=True)
class Events:
    """Events of the page.

    Attributes:
        visitors: of all visitors.
        max_pixels: of a result, and of any picture that is read.
        models: that may be asked for.
    """

    visitors: Visitors
    max_pixels: int
    models: tuple[str, ...]

    def visitor(self, request: gr.Request) -> Visitor:
        """Whose event it is."""
        return self.visitors.of(str(request.session_hash))

    def choices(self, model: str, *controls: Any) -> Choices:
        """What the controls say, as :meth:`Choices.sent` takes them.

        Values are checked here and not by Gradio, which would refuse a budget that was sent before
        the browser knew of the slider's new range.

        Raises:
            ConfigError: no browser sends such values.
        """
        if model not in self.models:
            raise ConfigError(f"no model is called {model!r}")
        return Choices.sent(model, *controls)


def reporter(progress: gr.Progress) -> work.Report:
    """Reports now and then: work that is done in a moment shows no progress, and pays for none."""
    last = time.monotonic()

    def report(part: float, said: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REPORT_SECONDS:
            last = now
            progress(part, desc=said)

    return report


def remedy_button(visitor: Visitor, error: PCSRError) -> Any:
    """The button with which the visitor gets on, if an error has such a way."""
    visitor.remedy = error.remedy if isinstance(error, RefusedError) else None
    if visitor.remedy is None or visitor.refused is not None:
        return gr.update(visible=False)
    return gr.update(value=visitor.remedy.label, visible=True)

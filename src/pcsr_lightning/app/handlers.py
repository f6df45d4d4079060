"""What the page's events do: visitors and values in, values for components out.

A request comes in two steps. ``want``, which never waits for anything, says what is wanted now and
thereby stops whatever is computed for the same visitor. ``upscale`` and ``compare`` then take their
turns with those of other visitors, and do nothing if something else is wanted by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from pcsr_lightning.app import texts, work
from pcsr_lightning.app.choices import BY_BUDGET
from pcsr_lightning.app.events import PROGRESS, Answer, remedy_button, reporter
from pcsr_lightning.app.file_handlers import FileHandlers
from pcsr_lightning.app.loading import (
    READ_PIXELS,
    SAMPLE_SCALE,
    Loaded,
    load_reference,
    load_sample,
    load_upload,
)
from pcsr_lightning.app.result_files import viewer
from pcsr_lightning.app.runs import Run
from pcsr_lightning.app.visitors import Sent, Visitor
from pcsr_lightning.errors import PCSRError


class Handlers(FileHandlers):
    """All events of the page."""

    def upload(self, files: list[str] | None, request: gr.Request) -> Answer:
        """Pictures were sent: an empty drop zone for the next ones, and the first in view."""
        if not files:
            return (gr.skip(),) * 4
        visitor, sent = self.visitor(request), []
        number = visitor.bring()
        for file in map(Path, files):
            sent.append(Sent(file.name, visitor.new_file(file.suffix)))
            file.replace(sent[-1].path)
        first = sent[0]

        def read() -> Loaded:
            limit = min(READ_PIXELS, self.max_pixels)
            loaded = load_upload(first.path, first.name, limit)
            sent[0] = replace(first, size=loaded.size)
            return loaded

        return self._show(visitor, number, read, gr.skip(), sent)

    def sample(self, stem: str, request: gr.Request) -> Answer:
        """A sample was chosen; it comes with the scale it was shrunk by."""
        visitor = self.visitor(request)
        return self._show(visitor, visitor.bring(), lambda: load_sample(stem), SAMPLE_SCALE)

    def _show(
        self,
        visitor: Visitor,
        number: int,
        read: Callable[[], Loaded],
        scale: object,
        sent: Sequence[Sent] = (),
    ) -> Answer:
        """Values for drop zone, status, scale and remedy.

        A picture that cannot be read is reported; the one before it stays, and so does work on it.
        Nothing is said of one if another was brought while it was read.
        """
        try:
            if not visitor.show(read(), sent, number):
                return (None, *(gr.skip(),) * 3)
        except PCSRError as error:
            for one in sent:
                one.path.unlink(missing_ok=True)
            if number < visitor.brought:
                return (None, *(gr.skip(),) * 3)
            visitor.refused = str(error)
            return None, texts.status(visitor), gr.skip(), gr.update(visible=False)
        return None, texts.status(visitor), scale, gr.update(visible=False)

    def reference(self, file: str | None, request: gr.Request) -> Answer:
        """A picture to compare with was sent: an empty drop zone, a note, details and viewer."""
        visitor = self.visitor(request)
        if file is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        path = Path(file)
        try:
            picture_3HW = load_reference(path, self.max_pixels)
        except PCSRError as error:
            return None, texts.alert(str(error)), gr.skip(), gr.skip()
        with visitor.lock:
            visitor.reference = (path.name, picture_3HW)
            _forget_view(visitor, "reference")
            note = texts.reference_note(visitor)
            if visitor.run is None:
                return None, note, gr.skip(), gr.skip()
            return None, note, texts.details(visitor), viewer(visitor)

    def want(
        self,
        model: str,
        scale: float | None,
        compute: float | None,
        way: str,
        k: float | None,
        seconds: float | None,
        asked: float,
        request: gr.Request,
    ) -> Answer:
        """Says what is wanted now; work on anything else stops, and what was refused is forgotten.

        Args:
            model: the controls' values.
            scale: likewise.
            compute: likewise.
            way: likewise.
            k: likewise.
            seconds: likewise.
            asked: when, as the browser counts; requests may come in another order.
            request: whose.

        Returns:
            Status and remedy.
        """
        visitor = self.visitor(request)
        if not visitor.want(asked, self.choices(model, scale, compute, way, k, seconds)):
            return gr.skip(), gr.skip()
        return texts.status(visitor), gr.update(visible=False)

    def upscale(self, request: gr.Request, progress: gr.Progress = PROGRESS) -> Answer:
        """What is wanted: values for status, remedy, slider and all that shows a result."""
        visitor = self.visitor(request)
        nothing = (gr.skip(),) * 8
        with visitor.lock:
            ticket = visitor.wanted
            there = visitor.run is not None and visitor.run.ticket == ticket
            if ticket is None or ticket[0] != visitor.loaded_number or there:
                return nothing
            try:
                run = work.upscale(visitor, ticket, self.max_pixels, reporter(progress))
                view, details = viewer(visitor), texts.details(visitor)
            except work.Stopped:
                return nothing
            except PCSRError as error:
                visitor.forget_work()
                # A newer picture that was refused is what the visitor waits to hear about.
                said = texts.alert(visitor.refused or str(error))
                remedy = remedy_button(visitor, error)
                return said, remedy, gr.skip(), None, "", "", *(gr.update(interactive=False),) * 2
            return (
                texts.status(visitor),
                gr.update(visible=False),
                _slider(visitor, run),
                view,
                details,
                texts.reference_note(visitor),
                gr.update(interactive=visitor.heavy is None),
                gr.update(interactive=True),
            )

    def ask_to_compare(self, request: gr.Request) -> None:
        """The all-heavy run is wanted for this picture, however the slider is moved meanwhile."""
        self.visitor(request).comparing = True

    def compare(self, request: gr.Request, progress: gr.Progress = PROGRESS) -> Answer:
        """Viewer, details and button with the all-heavy run in them, if it was asked for."""
        visitor = self.visitor(request)
        with visitor.lock:
            ticket, run = visitor.wanted, visitor.run
            there = ticket is not None and run is not None and run.ticket == ticket
            if not (there and visitor.comparing) or visitor.heavy is not None:
                return gr.skip(), gr.skip(), gr.skip()
            assert ticket is not None
            try:
                work.all_heavy(visitor, ticket, reporter(progress))
                view, details = viewer(visitor), texts.details(visitor)
                return view, details, gr.update(interactive=False)
            except work.Stopped:
                return gr.skip(), gr.skip(), gr.skip()
            except PCSRError as error:
                return gr.skip(), texts.alert(str(error)), gr.skip()

    def use_remedy(self, request: gr.Request) -> Answer:
        """What lets the refused request through: scale, format, status and the button, hidden."""
        visitor = self.visitor(request)
        remedy, visitor.remedy, visitor.refused = visitor.remedy, None, None
        hidden = gr.update(visible=False)
        if remedy is None:
            return gr.skip(), gr.skip(), gr.skip(), hidden
        scale = gr.skip() if remedy.scale is None else remedy.scale
        format = gr.skip() if remedy.format is None else remedy.format
        return scale, format, texts.status(visitor), hidden

    def look(self, event: gr.SelectData, request: gr.Request) -> None:
        """The visitor has chosen another part of a large picture."""
        visitor = self.visitor(request)
        if visitor.loaded is not None and visitor.loaded.overview_hw3 is not None:
            h, w = visitor.loaded.overview_hw3.shape[:2]
            visitor.look((event.index[1] / h, event.index[0] / w))

    def leave(self, request: gr.Request) -> None:
        """The visitor has closed the page."""
        self.visitors.end(str(request.session_hash))


def _slider(visitor: Visitor, run: Run) -> Any:
    """The slider's range, and its place where it is not what the visitor has chosen.

    That of an automatic run is at what it has cost, so that it is moved from there.
    """
    if run.choices.way != BY_BUDGET and visitor.session is not None:
        percent = round(work.cost_percent(run, visitor.session))
        return gr.update(minimum=run.floor, value=min(100, max(run.floor, percent)))
    if run.choices.compute != run.ticket[1].compute:
        return gr.update(minimum=run.floor, value=run.choices.compute)
    return gr.update(minimum=run.floor)


def _forget_view(visitor: Visitor, name: str) -> None:
    path = visitor.views.pop(name, None)
    if path is not None:
        path.unlink(missing_ok=True)

"""What the page's events do: visitors and values in, values for components out.

A request comes in two steps. ``want``, which never waits in the queue, says what is wanted now and
thereby stops whatever is computed for the same visitor. ``upscale`` and ``compare`` then take their
turns with those of other visitors, and do nothing if something else is wanted by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from pcsr_lightning.app import texts, work
from pcsr_lightning.app.loading import (
    SAMPLE_SCALE,
    Loaded,
    load_reference,
    load_sample,
    load_upload,
)
from pcsr_lightning.app.visitors import FIRST_COMPUTE, Choices, Ticket, Visitor, Visitors
from pcsr_lightning.errors import PCSRError

Answer = tuple[Any, ...]
PROGRESS = gr.Progress()
REPORT_SECONDS = 0.2
FILE_ROUTE = "gradio_api/file="


@dataclass(frozen=True)
class Handlers:
    """The page's events.

    Attributes:
        visitors: of all visitors.
        max_pixels: of a result, and of any picture that is read.
    """

    visitors: Visitors
    max_pixels: int

    def upload(self, file: str | None, request: gr.Request) -> Answer:
        """A picture was sent: an empty drop zone for the next one, and the status line."""
        if file is None:
            return gr.skip(), gr.skip(), gr.skip()
        return self._show(request, lambda: load_upload(Path(file), self.max_pixels), gr.skip())

    def sample(self, stem: str, request: gr.Request) -> Answer:
        """A sample was chosen; it comes with the scale it was shrunk by."""
        return self._show(request, lambda: load_sample(stem), SAMPLE_SCALE)

    def _show(self, request: gr.Request, read: Callable[[], Loaded], scale: object) -> Answer:
        """Values for drop zone, status and scale.

        A picture that cannot be read is reported; the one before it stays, and so does work on it.
        """
        visitor = self._visitor(request)
        try:
            visitor.show(read())
        except PCSRError as error:
            visitor.refused = str(error)
            return None, texts.status(visitor), gr.skip()
        return None, texts.status(visitor), scale

    def reference(self, file: str | None, request: gr.Request) -> Answer:
        """A picture to compare with was sent: an empty drop zone, a note, details and viewer."""
        visitor = self._visitor(request)
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
            said = texts.reference_problem(visitor)
            note = texts.alert(said) if said else texts.note(f"Compared with {path.name}.")
            if visitor.run is None:
                return None, note, gr.skip(), gr.skip()
            return None, note, texts.details(visitor), self._view(visitor)

    def want(
        self, model: str, scale: float, compute: float, way: str, k: float, request: gr.Request
    ) -> None:
        """Says what is wanted now; work on anything else stops."""
        visitor, ticket = self._asked(request, model, scale, compute, way, k)
        if visitor.wanted != ticket:
            visitor.wanted, visitor.refused = ticket, None

    def upscale(
        self,
        model: str,
        scale: float,
        compute: float,
        way: str,
        k: float,
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> Answer:
        """Status, viewer, details and download button for what is wanted."""
        visitor, ticket = self._asked(request, model, scale, compute, way, k)
        nothing = (gr.skip(), gr.skip(), gr.skip(), gr.skip())
        with visitor.lock:
            there = visitor.run is not None and visitor.run.ticket == ticket
            if visitor.loaded is None or visitor.wanted != ticket or there:
                return nothing
            try:
                work.upscale(visitor, ticket, self.max_pixels, _reporter(progress))
                view = self._view(visitor)
                said = texts.status(visitor), view, texts.details(visitor)
            except work.Stopped:
                return nothing
            except PCSRError as error:
                visitor.forget_work()
                # A newer picture that was refused is what the visitor waits to hear about.
                refusal = texts.alert(visitor.refused or str(error))
                return refusal, None, "", gr.update(interactive=False)
        return *said, gr.update(interactive=True)

    def compare(
        self,
        model: str,
        scale: float,
        compute: float,
        way: str,
        k: float,
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> Answer:
        """Viewer and details with the all-heavy run in them, if it was not there yet."""
        visitor, ticket = self._asked(request, model, scale, compute, way, k)
        with visitor.lock:
            if visitor.run is None or visitor.wanted != ticket or visitor.heavy is not None:
                return gr.skip(), gr.skip()
            try:
                work.all_heavy(visitor, ticket, _reporter(progress))
                return self._view(visitor), texts.details(visitor)
            except work.Stopped:
                return gr.skip(), gr.skip()
            except PCSRError as error:
                return gr.skip(), texts.alert(str(error))

    def download(self, request: gr.Request) -> Answer:
        """Where the browser finds the result's file and what to call it, and the status line."""
        visitor = self._visitor(request)
        with visitor.lock:
            try:
                path = work.save_result(visitor)
            except PCSRError as error:
                return None, texts.alert(str(error))
            return {"url": address(path), "name": path.name}, gr.skip()

    def leave(self, request: gr.Request) -> None:
        """The visitor has closed the page."""
        self.visitors.end(str(request.session_hash))

    def _visitor(self, request: gr.Request) -> Visitor:
        return self.visitors.of(str(request.session_hash))

    def _asked(
        self,
        request: gr.Request,
        model: str,
        scale: float | None,
        compute: float | None,
        way: str,
        k: float | None,
    ) -> tuple[Visitor, Ticket]:
        """The visitor and what the controls ask for; an emptied number box has its first value."""
        visitor = self._visitor(request)
        choices = Choices(
            model,
            SAMPLE_SCALE if scale is None else scale,
            FIRST_COMPUTE if compute is None else compute,
            way,
            0.0 if k is None else k,
        )
        return visitor, (visitor.number, choices)

    def _view(self, visitor: Visitor) -> dict[str, Any]:
        """What the viewer shows; files that are there already are used again."""
        run, session = visitor.run, visitor.session
        assert run is not None
        assert session is not None
        key = f"{visitor.number} {run.ticket[1]}"
        if visitor.shown != key:
            work.save_view(visitor, "after", run.result.image[0])
            work.save_map(visitor, run.result.assignment[0])
            visitor.shown = key
        if "bicubic" not in visitor.views:
            work.save_view(visitor, "bicubic", work.bicubic_result(visitor))
        if visitor.heavy is not None and "all-heavy" not in visitor.views:
            work.save_view(visitor, "all-heavy", visitor.heavy.image_3HW)
        reference = visitor.fitting_reference
        if reference is not None and "reference" not in visitor.views:
            work.save_view(visitor, "reference", reference)
        addresses = {name: address(path) for name, path in visitor.views.items()}
        return {
            "key": key,
            "size": [session.size[1], session.size[0]],
            "after": addresses["after"],
            "map": addresses["map"],
            "before": {n: addresses.get(n) for n in ("bicubic", "all-heavy", "reference")},
            "label": f"PCSR, {texts.describe_choices(run.ticket[1])}",
        }


def address(path: Path) -> str:
    """Where the browser finds a file of a visitor, seen from the page."""
    return FILE_ROUTE + quote(str(path))


def _reporter(progress: gr.Progress) -> work.Report:
    """Reports now and then: work that is done in a moment shows no progress, and pays for none."""
    last = time.monotonic()

    def report(part: float, said: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REPORT_SECONDS:
            last = now
            progress(part, desc=said)

    return report


def _forget_view(visitor: Visitor, name: str) -> None:
    path = visitor.views.pop(name, None)
    if path is not None:
        path.unlink(missing_ok=True)

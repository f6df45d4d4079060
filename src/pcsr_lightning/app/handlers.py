"""What the page's events do: sessions and values in, values for components out.

A request comes in two steps. ``want``, which never waits in the queue, says what is wanted now and
thereby stops whatever is computed for the same visitor. ``enlarge`` and ``compare`` then take their
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

from pcsr_lightning.app import words, work
from pcsr_lightning.app.loading import (
    SAMPLE_SCALE,
    Loaded,
    load_reference,
    load_sample,
    load_upload,
)
from pcsr_lightning.app.session import FIRST_COMPUTE, Choices, Session, Sessions
from pcsr_lightning.errors import PCSRError

Answer = tuple[Any, ...]
PROGRESS = gr.Progress()
TELL_SECONDS = 0.2
FILE_ROUTE = "gradio_api/file="


@dataclass(frozen=True)
class Handlers:
    """The page's events.

    Attributes:
        sessions: of all visitors.
        max_pixels: of a result, and of any picture that is read.
    """

    sessions: Sessions
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
        """Values for drop zone, status and scale. A failure is told.

        The picture that was there stays, and work on it goes on.
        """
        session = self._session(request)
        try:
            session.show(read())
        except PCSRError as error:
            session.refused = str(error)
            return None, words.status(session), gr.skip()
        return None, words.status(session), scale

    def reference(self, file: str | None, request: gr.Request) -> Answer:
        """A picture to compare with was sent: an empty drop zone, a note, facts and viewer."""
        session = self._session(request)
        if file is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        path = Path(file)
        try:
            picture_3HW = load_reference(path, self.max_pixels)
        except PCSRError as error:
            return None, words.alert(str(error)), gr.skip(), gr.skip()
        with session.lock:
            session.reference = (path.name, picture_3HW)
            _forget_view(session, "reference")
            said = words.reference_problem(session)
            note = words.alert(said) if said else words.note(f"Compared with {path.name}.")
            if session.run is None:
                return None, note, gr.skip(), gr.skip()
            return None, note, words.facts(session), self._view(session)

    def want(
        self, model: str, scale: float, compute: float, way: str, k: float, request: gr.Request
    ) -> None:
        """Says what is wanted now; work on anything else stops."""
        session = self._session(request)
        ticket = (session.number, _chosen(model, scale, compute, way, k))
        if session.wanted != ticket:
            session.wanted, session.refused = ticket, None

    def enlarge(
        self,
        model: str,
        scale: float,
        compute: float,
        way: str,
        k: float,
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> Answer:
        """Status, viewer, facts and download button for what is wanted."""
        session = self._session(request)
        ticket = (session.number, _chosen(model, scale, compute, way, k))
        nothing = (gr.skip(), gr.skip(), gr.skip(), gr.skip())
        with session.lock:
            there = session.run is not None and session.run.ticket == ticket
            if session.loaded is None or session.wanted != ticket or there:
                return nothing
            try:
                work.enlarge(session, ticket, self.max_pixels, _teller(progress))
                view = self._view(session)
                said = words.status(session), view, words.facts(session)
            except work.Stopped:
                return nothing
            except PCSRError as error:
                session.forget_work()
                return words.alert(str(error)), None, "", gr.update(interactive=False)
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
        """Viewer and facts with the all-heavy run in them, if it was not there yet."""
        session = self._session(request)
        ticket = (session.number, _chosen(model, scale, compute, way, k))
        with session.lock:
            if session.run is None or session.wanted != ticket or session.heavy is not None:
                return gr.skip(), gr.skip()
            try:
                work.all_heavy(session, ticket, _teller(progress))
                return self._view(session), words.facts(session)
            except work.Stopped:
                return gr.skip(), gr.skip()
            except PCSRError as error:
                return gr.skip(), words.alert(str(error))

    def download(self, request: gr.Request) -> Answer:
        """Where the browser finds the whole result and what to call it, and the status line."""
        session = self._session(request)
        with session.lock:
            try:
                path = work.save_result(session)
            except PCSRError as error:
                return None, words.alert(str(error))
            return {"url": address(path), "name": path.name}, gr.skip()

    def leave(self, request: gr.Request) -> None:
        """The visitor has closed the page."""
        self.sessions.end(str(request.session_hash))

    def _session(self, request: gr.Request) -> Session:
        return self.sessions.of(str(request.session_hash))

    def _view(self, session: Session) -> dict[str, Any]:
        """What the viewer shows; files that are there already are used again."""
        run, rerouter = session.run, session.rerouter
        assert run is not None
        assert rerouter is not None
        key = f"{session.number} {run.ticket[1]}"
        if session.shown != key:
            work.save_view(session, "after", run.result.image[0])
            work.save_map(session, run.result.assignment[0])
            session.shown = key
        if "bicubic" not in session.views:
            work.save_view(session, "bicubic", work.enlarged_bicubic(session))
        if session.heavy is not None and "all-heavy" not in session.views:
            work.save_view(session, "all-heavy", session.heavy.image_3HW)
        reference = session.fitting_reference
        if reference is not None and "reference" not in session.views:
            work.save_view(session, "reference", reference)
        addresses = {name: address(path) for name, path in session.views.items()}
        return {
            "key": key,
            "size": [rerouter.size[1], rerouter.size[0]],
            "after": addresses["after"],
            "map": addresses["map"],
            "before": {n: addresses.get(n) for n in ("bicubic", "all-heavy", "reference")},
            "label": f"PCSR, {words.way_words(run.ticket[1])}",
        }


def _chosen(
    model: str, scale: float | None, compute: float | None, way: str, k: float | None
) -> Choices:
    """The controls' values; a number box that was emptied counts as it stood at first."""
    return Choices(
        model,
        SAMPLE_SCALE if scale is None else scale,
        FIRST_COMPUTE if compute is None else compute,
        way,
        0.0 if k is None else k,
    )


def address(path: Path) -> str:
    """Where the browser finds a file of a session, seen from the page."""
    return FILE_ROUTE + quote(str(path))


def _teller(progress: gr.Progress) -> work.Tell:
    """Tells now and then: work that is done in a moment shows no progress, and pays for none."""
    told = time.monotonic()

    def tell(part: float, said: str) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= TELL_SECONDS:
            told = now
            progress(part, desc=said)

    return tell


def _forget_view(session: Session, name: str) -> None:
    path = session.views.pop(name, None)
    if path is not None:
        path.unlink(missing_ok=True)

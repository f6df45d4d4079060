"""What the page's events do: visitors and values in, values for components out.

A request comes in two steps. ``want``, which never waits in the queue, says what is wanted now and
thereby stops whatever is computed for the same visitor. ``upscale`` and ``compare`` then take their
turns with those of other visitors, and do nothing if something else is wanted by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from pcsr_lightning.app import texts, work
from pcsr_lightning.app.files import FileJob, command_line
from pcsr_lightning.app.loading import (
    READ_PIXELS,
    SAMPLE_SCALE,
    Loaded,
    RefusedError,
    load_reference,
    load_sample,
    load_upload,
)
from pcsr_lightning.app.visitors import (
    AUTOMATIC,
    BY_BUDGET,
    BY_K,
    Choices,
    Run,
    Sent,
    Ticket,
    Visitor,
    Visitors,
)
from pcsr_lightning.errors import ConfigError, PCSRError
from pcsr_lightning.inference import output_size

Answer = tuple[Any, ...]
PROGRESS = gr.Progress()
REPORT_SECONDS = 0.2


@dataclass(frozen=True)
class Handlers:
    """The page's events.

    Attributes:
        visitors: of all visitors.
        max_pixels: of a result, and of any picture that is read.
        models: that may be asked for.
    """

    visitors: Visitors
    max_pixels: int
    models: tuple[str, ...]

    def upload(self, files: list[str] | None, request: gr.Request) -> Answer:
        """Pictures were sent: an empty drop zone for the next ones, and the first in view."""
        if not files:
            return (gr.skip(),) * 4
        visitor, sent = self._visitor(request), []
        for file in map(Path, files):
            sent.append(Sent(file.name, visitor.new_file(file.suffix)))
            file.replace(sent[-1].path)
        first = sent[0]

        def read() -> Loaded:
            limit = min(READ_PIXELS, self.max_pixels)
            loaded = load_upload(first.path, first.name, limit)
            sent[0] = replace(first, size=loaded.size)
            return loaded

        return self._show(request, read, gr.skip(), sent)

    def sample(self, stem: str, request: gr.Request) -> Answer:
        """A sample was chosen; it comes with the scale it was shrunk by."""
        return self._show(request, lambda: load_sample(stem), SAMPLE_SCALE)

    def _show(
        self,
        request: gr.Request,
        read: Callable[[], Loaded],
        scale: object,
        sent: Sequence[Sent] = (),
    ) -> Answer:
        """Values for drop zone, status, scale and remedy.

        A picture that cannot be read is reported; the one before it stays, and so does work on it.
        """
        visitor = self._visitor(request)
        try:
            visitor.show(read(), sent)
        except PCSRError as error:
            for one in sent:
                one.path.unlink(missing_ok=True)
            visitor.refused = str(error)
            return None, texts.status(visitor), gr.skip(), gr.update(visible=False)
        return None, texts.status(visitor), scale, gr.update(visible=False)

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
            note = texts.reference_note(visitor)
            if visitor.run is None:
                return None, note, gr.skip(), gr.skip()
            return None, note, texts.details(visitor), self._view(visitor)

    def want(
        self,
        model: str,
        scale: float | None,
        compute: float | None,
        way: str,
        k: float | None,
        request: gr.Request,
    ) -> Answer:
        """Says what is wanted now; work on anything else stops, and what was refused is forgotten.

        Returns:
            Status, remedy and compute slider.
        """
        visitor = self._visitor(request)
        visitor.asks += 1
        order = visitor.asks
        _, ticket = self._asked(request, model, scale, compute, way, k)
        if visitor.asks != order:  # a model was loaded meanwhile, and something newer is wanted
            return gr.skip(), gr.skip(), gr.skip()
        slider = self._range(visitor, model, ticket[1].scale, compute)
        if visitor.loaded is None or visitor.wanted == ticket:
            return gr.skip(), gr.skip(), slider
        visitor.wanted, visitor.refused = ticket, None
        return texts.status(visitor), gr.update(visible=False), slider

    def upscale(self, request: gr.Request, progress: gr.Progress = PROGRESS) -> Answer:
        """What is wanted: values for status, remedy, slider and all that shows a result."""
        visitor = self._visitor(request)
        nothing = (gr.skip(),) * 8
        with visitor.lock:
            ticket = visitor.wanted
            there = visitor.run is not None and visitor.run.ticket == ticket
            if visitor.loaded is None or ticket is None or there:
                return nothing
            try:
                run = work.upscale(visitor, ticket, self.max_pixels, _reporter(progress))
                view, details = self._view(visitor), texts.details(visitor)
            except work.Stopped:
                return nothing
            except PCSRError as error:
                visitor.forget_work()
                # A newer picture that was refused is what the visitor waits to hear about.
                said = texts.alert(visitor.refused or str(error))
                remedy = _offer(visitor, error)
                return said, remedy, gr.skip(), None, "", "", *(gr.update(interactive=False),) * 2
            return (
                texts.status(visitor),
                gr.update(visible=False),
                _cost(visitor, run),
                view,
                details,
                texts.reference_note(visitor),
                gr.update(interactive=visitor.heavy is None),
                gr.update(interactive=True),
            )

    def ask_to_compare(self, request: gr.Request) -> None:
        """The all-heavy run is wanted for this picture, however the slider is moved meanwhile."""
        self._visitor(request).comparing = True

    def compare(self, request: gr.Request, progress: gr.Progress = PROGRESS) -> Answer:
        """Viewer, details and button with the all-heavy run in them, if it was asked for."""
        visitor = self._visitor(request)
        with visitor.lock:
            ticket, run = visitor.wanted, visitor.run
            there = ticket is not None and run is not None and run.ticket == ticket
            if not (there and visitor.comparing) or visitor.heavy is not None:
                return gr.skip(), gr.skip(), gr.skip()
            assert ticket is not None
            try:
                work.all_heavy(visitor, ticket, _reporter(progress))
                view, details = self._view(visitor), texts.details(visitor)
                return view, details, gr.update(interactive=False)
            except work.Stopped:
                return gr.skip(), gr.skip(), gr.skip()
            except PCSRError as error:
                return gr.skip(), texts.alert(str(error)), gr.skip()

    def download(self, format: str, quality: float, request: gr.Request) -> Answer:
        """Where the browser finds the result's file and what to call it, status and remedy."""
        visitor = self._visitor(request)
        try:
            path = work.save_result(visitor, format, int(quality))
        except PCSRError as error:
            return None, texts.alert(str(error)), _offer(visitor, error)
        file = {"url": texts.address(path), "name": path.name}
        return file, texts.status(visitor), gr.update(visible=False)

    def use_remedy(self, request: gr.Request) -> Answer:
        """What lets the refused request through: scale, format, status and the button, hidden."""
        visitor = self._visitor(request)
        remedy, visitor.remedy, visitor.refused = visitor.remedy, None, None
        hidden = gr.update(visible=False)
        if remedy is None:
            return gr.skip(), gr.skip(), gr.skip(), hidden
        scale = gr.skip() if remedy.scale is None else remedy.scale
        format = gr.skip() if remedy.format is None else remedy.format
        return scale, format, texts.status(visitor), hidden

    def beside(
        self,
        model: str,
        scale: float | None,
        compute: float | None,
        way: str,
        k: float | None,
        format: str,
        quality: float,
        request: gr.Request,
    ) -> Answer:
        """What there is besides a result in view.

        Returns:
            Overview, the panel of files, its note, its button, a command line, and the download
            button.
        """
        visitor, (_, choices) = self._asked(request, model, scale, compute, way, k)
        with visitor.lock:
            part, count = visitor.window is not None, len(visitor.sent)
            path = work.save_overview(visitor) if part else None
            overview = gr.update(value=None if path is None else str(path), visible=part)
            download = gr.update(value="Download this part" if part else "Download")
            if not part and count < 2:
                return overview, gr.update(visible=False), *(gr.skip(),) * 3, download
            names = [one.name for one in visitor.sent]
            label = "Upscale the whole picture" if count == 1 else f"Upscale all {count} pictures"
            return (
                overview,
                gr.update(visible=True),
                texts.files_note(visitor),
                label,
                command_line(names, choices, format, int(quality)),
                download,
            )

    def look(self, event: gr.SelectData, request: gr.Request) -> None:
        """The visitor has chosen another part of a large picture."""
        visitor = self._visitor(request)
        loaded = visitor.loaded
        if loaded is None or loaded.overview_hw3 is None:
            return
        h, w = loaded.overview_hw3.shape[:2]
        visitor.focus = (event.index[1] / h, event.index[0] / w)
        visitor.number += 1

    def begin_files(
        self,
        model: str,
        scale: float | None,
        compute: float | None,
        way: str,
        k: float | None,
        format: str,
        quality: float,
        request: gr.Request,
    ) -> Answer:
        """Files are asked for; the buttons to begin and to cancel."""
        visitor, (_, choices) = self._asked(request, model, scale, compute, way, k)
        if visitor.sent and format in work.FORMATS:
            quality = min(100, max(1, int(quality)))
            visitor.job = FileJob(list(visitor.sent), choices, format, quality)
        return gr.update(interactive=False), gr.update(visible=True)

    def make_files(self, request: gr.Request, progress: gr.Progress = PROGRESS) -> Answer:
        """What has become of the files, and the buttons to begin and to cancel."""
        visitor, buttons = (
            self._visitor(request),
            (gr.update(interactive=True), gr.update(visible=False)),
        )
        job = visitor.job
        if job is None or job.result is not None:
            return gr.skip(), *buttons
        try:
            job.work(visitor, self.max_pixels, _reporter(progress))
        except work.Stopped:
            return texts.note("Cancelled."), *buttons
        except PCSRError as error:
            return texts.alert(str(error)), *buttons
        return texts.files_note(visitor), *buttons

    def cancel_files(self, request: gr.Request) -> None:
        """The files are not wanted any more."""
        self._visitor(request).job = None

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
        """The visitor and what the controls ask for; an emptied number box has its first value.

        Values are checked here and not by Gradio, which would refuse a budget that was sent before
        the browser knew of the slider's new range.

        Raises:
            ConfigError: no browser sends such values.
        """
        visitor = self._visitor(request)
        if model not in self.models or way not in (AUTOMATIC, BY_BUDGET, BY_K):
            raise ConfigError(f"no model or way is called {model!r}, {way!r}")
        scale = SAMPLE_SCALE if scale is None else float(scale)
        if way == BY_BUDGET:
            floor = self._floor(visitor, model, scale)
            compute = max(floor, 100.0 if compute is None else compute)
        # What does not count must not make another request of the same one.
        choices = Choices(
            model,
            scale,
            float(compute or 0) if way == BY_BUDGET else 0.0,
            way,
            float(k or 0) if way == BY_K else 0.0,
        )
        return visitor, (visitor.number, choices)

    def _floor(self, visitor: Visitor, model: str, scale: float) -> int:
        """The lowest percentage that there is for this picture; 0 if the model cannot be used."""
        lr_size = (100, 100) if visitor.loaded is None else visitor.loaded.size
        try:
            return work.floor_percent(model, lr_size, output_size(lr_size, scale))
        except PCSRError:
            return 0  # the upscaling will say why

    def _range(self, visitor: Visitor, model: str, scale: float, compute: float | None) -> Any:
        """The slider's range, if it is another than before."""
        floor = self._floor(visitor, model, scale)
        if visitor.floor == floor:
            return gr.skip()
        visitor.floor = floor
        if compute is None or compute >= floor:
            return gr.update(minimum=floor)
        return gr.update(minimum=floor, value=floor)

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
        addresses = {name: texts.address(path) for name, path in visitor.views.items()}
        return {
            "key": key,
            "size": [session.size[1], session.size[0]],
            "after": addresses["after"],
            "map": addresses["map"],
            "before": {n: addresses.get(n) for n in ("bicubic", "all-heavy", "reference")},
            "label": f"PCSR, {texts.describe_choices(run.ticket[1])}",
        }


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


def _offer(visitor: Visitor, error: PCSRError) -> Any:
    """The button with which the visitor gets on, if an error has such a way."""
    visitor.remedy = error.remedy if isinstance(error, RefusedError) else None
    if visitor.remedy is None or visitor.refused is not None:
        return gr.update(visible=False)
    return gr.update(value=visitor.remedy.label, visible=True)


def _cost(visitor: Visitor, run: Run) -> Any:
    """The slider at what an automatic run has cost, so that it is moved from there."""
    if run.ticket[1].way == BY_BUDGET or visitor.session is None:
        return gr.skip()
    percent = round(work.cost_percent(run, visitor.session))
    return min(100, max(visitor.floor or 0, percent))


def _forget_view(visitor: Visitor, name: str) -> None:
    path = visitor.views.pop(name, None)
    if path is not None:
        path.unlink(missing_ok=True)

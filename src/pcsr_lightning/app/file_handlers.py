"""Events about files to take away: the result, and whole files made in the background."""

from __future__ import annotations

import gradio as gr

from pcsr_lightning.app import result_files, texts, work
from pcsr_lightning.app.events import PROGRESS, Answer, Events, remedy_button, reporter
from pcsr_lightning.app.files import FileJob, command_line
from pcsr_lightning.errors import PCSRError


class FileHandlers(Events):
    """Events about files to take away."""

    def download(self, format: str, quality: float, request: gr.Request) -> Answer:
        """Where the browser finds the result's file and what to call it, status and remedy."""
        visitor = self.visitor(request)
        try:
            path = result_files.save_result(visitor, format, int(quality))
        except PCSRError as error:
            return None, texts.alert(str(error)), remedy_button(visitor, error)
        file = {"url": texts.address(path), "name": path.name}
        return file, texts.status(visitor), gr.update(visible=False)

    def beside(
        self,
        model: str,
        scale: float | None,
        compute: float | None,
        way: str,
        k: float | None,
        seconds: float | None,
        format: str,
        quality: float,
        request: gr.Request,
    ) -> Answer:
        """What there is besides a result in view.

        Returns:
            Overview, the panel of files, its note, its button, a command line, and the download
            button.
        """
        visitor = self.visitor(request)
        choices = self.choices(model, scale, compute, way, k, seconds)
        with visitor.lock:
            part, count = visitor.window is not None, len(visitor.sent)
            path = result_files.save_overview(visitor) if part else None
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

    def begin_files(
        self,
        model: str,
        scale: float | None,
        compute: float | None,
        way: str,
        k: float | None,
        seconds: float | None,
        format: str,
        quality: float,
        request: gr.Request,
    ) -> Answer:
        """Files are asked for; the buttons to begin and to cancel."""
        visitor = self.visitor(request)
        choices = self.choices(model, scale, compute, way, k, seconds)
        if visitor.sent and format in result_files.FORMATS:
            quality = min(100, max(1, int(quality)))
            visitor.job = FileJob(list(visitor.sent), choices, format, quality)
        return gr.update(interactive=False), gr.update(visible=True)

    def make_files(self, request: gr.Request, progress: gr.Progress = PROGRESS) -> Answer:
        """What has become of the files, and the buttons to begin and to cancel."""
        visitor = self.visitor(request)
        buttons = gr.update(interactive=True), gr.update(visible=False)
        job = visitor.job
        if job is None or job.result is not None:
            return gr.skip(), *buttons
        try:
            job.work(visitor, self.max_pixels, reporter(progress))
        except work.Stopped:
            return texts.note("Cancelled."), *buttons
        except PCSRError as error:
            return texts.alert(str(error)), *buttons
        return texts.files_note(visitor), *buttons

    def cancel_files(self, request: gr.Request) -> None:
        """The files are not wanted any more."""
        self.visitor(request).job = None

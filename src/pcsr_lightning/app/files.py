"""Whole files made in the background: one too large to be shown, or several as a zip."""

from __future__ import annotations

import shlex
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from pcsr_lightning.app.choices import AUTOMATIC, BY_BUDGET, BY_SECONDS, Choices
from pcsr_lightning.app.loading import READ_PIXELS, result_size
from pcsr_lightning.app.result_files import FORMATS, plain_name
from pcsr_lightning.app.visitors import Sent, Visitor
from pcsr_lightning.app.work import Report, Stopped, models_of
from pcsr_lightning.batch.one_picture import UpscaleOptions, upscale_file
from pcsr_lightning.batch.outputs import Job
from pcsr_lightning.errors import PCSRError


@dataclass
class FileJob:
    """Files to make, and what has become of them.

    Attributes:
        sent: the pictures.
        choices: how.
        format: a key of :data:`~pcsr_lightning.app.result_files.FORMATS`.
        quality: 1 to 100.
        failed: what was said of each picture that could not be made.
        result: the file to take away.
    """

    sent: list[Sent]
    choices: Choices
    format: str
    quality: int
    failed: list[str] = field(default_factory=list)
    result: Path | None = None

    def work(self, visitor: Visitor, max_pixels: int, report: Report) -> None:
        """Makes the files, in strips, so that memory does not grow with them.

        Args:
            visitor: whose job this is; it stops once this is no longer so.
            max_pixels: that a result may have.
            report: takes the part that is done.

        Raises:
            Stopped: it was cancelled; nothing is left of it.
            PCSRError: none of the files could be made.
        """
        made, done = visitor.new_file(""), False
        made.mkdir()
        archive = made / f"pictures_x{self.choices.scale:g}.zip"
        try:
            for i, one in enumerate(self.sent):
                target = self._target(made, one)
                try:
                    self._make(visitor, i, target, max_pixels, report)
                except PCSRError as error:
                    self.failed.append(str(error).replace(str(one.path), one.name))
                    continue
                self.result = target
                if len(self.sent) > 1:
                    self._pack(archive, target)
            if self.result is None:
                raise PCSRError("; ".join(self.failed))
            done = True
        finally:
            if not done:
                for path in made.iterdir():
                    path.unlink()
                made.rmdir()

    def _make(
        self, visitor: Visitor, i: int, target: Path, max_pixels: int, report: Report
    ) -> None:
        one, count = self.sent[i], len(self.sent)
        said = one.name if count == 1 else f"{one.name} ({i + 1} of {count})"

        def progress(part: float) -> None:
            if visitor.job is not self:
                raise Stopped
            report((i + part) / count, said)

        progress(0.0)
        if one.size is not None:
            result_size(one.size, self.choices.scale, max_pixels)
        options = UpscaleOptions(
            self.choices.scale,
            routing=self.choices.routing,
            quality=self.quality,
            max_pixels=min(READ_PIXELS, int(max_pixels / self.choices.scale**2)),
        )
        upscale_file(models_of(self.choices.model), Job(one.path, target), options, progress)

    def _target(self, made: Path, one: Sent) -> Path:
        """Where a picture goes, under its own name; two of one name are told apart by a number."""
        stem = f"{plain_name(one.name)}_x{self.choices.scale:g}"
        names = [plain_name(other.name) for other in self.sent]
        if names.count(plain_name(one.name)) > 1:
            stem += f"_{self.sent.index(one) + 1}"
        return made / f"{stem}{FORMATS[self.format]}"

    def _pack(self, archive: Path, target: Path) -> None:
        """Moves a picture into the archive; it is compressed already."""
        with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as file:
            file.write(target, target.name)
        target.unlink()
        self.result = archive


def command_line(names: list[str], choices: Choices, format: str, quality: int) -> str:
    """What makes the same files on the visitor's own computer."""
    words = [
        "python",
        "-m",
        "pcsr_lightning.upscale",
        *(shlex.quote(name if name[0] != "-" else f"./{name}") for name in names),
    ]
    if len(names) > 1:
        words += ["large/", "--format", FORMATS[format][1:]]
    else:
        name = f"{Path(names[0]).stem}_x{choices.scale:g}{FORMATS[format]}"
        words.append(shlex.quote(name))
    if choices.model != AUTOMATIC:
        words += ["--model", shlex.quote(choices.model)]
    words += ["--scale", f"{choices.scale:g}"]
    if choices.way == AUTOMATIC:
        words.append("--adaptive")
    elif choices.way == BY_BUDGET:
        words += ["--budget", f"{choices.compute:g}%"]
    elif choices.way == BY_SECONDS:
        words += ["--seconds", f"{choices.seconds:g}"]
    else:
        words += ["--k", f"{choices.k:g}"]
    if format != "PNG":
        words += ["--quality", str(quality)]
    return " ".join(words)

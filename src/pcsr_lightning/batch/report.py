"""What a run prints: a line or a JSON object a picture, bars on a terminal, failures at the end.

A line of a result has 80 columns at most; ``verbose`` gives all that is known instead.

Rich is loaded only where there is a terminal to draw bars on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcsr_lightning.batch.inputs import STREAM, by_suffix
from pcsr_lightning.batch.outputs import Job
from pcsr_lightning.batch.tally import Tally
from pcsr_lightning.batch.terminal import fitted, indented
from pcsr_lightning.errors import error_line, single_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from pcsr_lightning.batch.one_picture import Done


class Reporter:
    """Prints what happens to each picture.

    Args:
        total: pictures in the run.
        as_json: JSON lines instead of text.
        quiet: nothing but errors.
        verbose: all that is known of each picture, and a line for each that is skipped.
        bars: whether bars may be drawn, on a terminal.
        left_out: how many files are no pictures, by suffix.
        to_stderr: text goes there, since stdout takes the picture.
        single: the one picture was named outright, so it need not be named again.
    """

    def __init__(
        self,
        total: int,
        *,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        bars: bool = True,
        left_out: Mapping[str, int] | None = None,
        to_stderr: bool = False,
        single: bool = False,
    ) -> None:
        self.tally = Tally()
        self._json, self._quiet, self._single = as_json, quiet, single
        self._left_out = dict(left_out or {})
        self._verbose, self._to_stderr, self._total = verbose, to_stderr, total
        self._start = time.perf_counter()
        self._bars: Bars | None = None
        self._batch: TaskID | None = None
        self._picture_bar: TaskID | None = None
        if bars and not quiet and sys.stderr.isatty():
            self._bars = _make_bars()
            self._bars.start()
            if total > 1:
                self._batch = self._bars.add_task("pictures", total=total)

    def close(self) -> None:
        """Takes the bars away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def begin(self, job: Job) -> Callable[[float], None] | None:
        """A picture is begun; returns what takes its progress, or ``None`` without bars."""
        bars = self._bars
        if bars is None:
            return None
        name = single_line(job.source.name)
        # From the start: reading a large picture takes as long as many strips.
        bar = self._picture_bar = bars.add_task(f"reading {name}", total=1.0)
        return lambda part: bars.update(bar, completed=part, description=name)

    def settings(self, text: str) -> None:
        """What every picture of the run is upscaled with."""
        if self._verbose:
            self._print(text)

    def done(self, job: Job, done: Done) -> None:
        """A picture is written."""
        self.tally.done += 1
        self.tally.again += job.outdated is not None
        if self._json:
            self._picture(
                job,
                "done",
                input_size=[done.lr_size[1], done.lr_size[0]],
                output_size=[done.size[1], done.size[0]],
                seconds=round(done.seconds, 4),
                shares=[round(share, 6) for share in done.shares],
                gmacs=done.gmacs,
                note=done.note,
                model=done.model.name,
                model_reason=done.model.reason,
                outdated=job.outdated,
            )
        elif self._verbose:
            self._print(f"{job.source} -> {job.target}: {done.details()}")
        else:
            name = "standard output" if job.target == STREAM else str(job.target)
            self._print(fitted(single_line(name), done.summary()))
            self._notes(done.model.said or "", done.note or "")
        if job.outdated is not None and not self._json:
            self._notes(f"made again: {job.outdated}")
        self._advance()

    def skipped(self, job: Job, elsewhere: bool = False) -> None:
        """A picture need not be done."""
        self.tally.elsewhere += elsewhere
        self.tally.skipped += not elsewhere
        self.tally.unrecorded += job.unrecorded and not elsewhere
        reason = "made by another process meanwhile" if elsewhere else "exists"
        if self._json:
            self._picture(job, "skipped", reason=reason, recorded=not job.unrecorded)
        elif self._single or self._verbose:
            advice = "" if elsewhere else "; --overwrite makes it again"
            how = ", made in an unknown way" if job.unrecorded and not elsewhere else ""
            self._print(f"{job.target}: skipped ({reason}{how}{advice})")
        self._advance()

    def failed(self, source: Path, target: Path | None, error: Exception | str) -> None:
        """A picture could not be done."""
        reason = error if isinstance(error, str) else error_line(error)
        self.tally.failures.append((str(source), reason))
        if self._json:
            self._picture(Job(source, target or STREAM), "failed", error=reason)
        self._advance()

    def left_to_others(self) -> None:
        """A picture that another process of this run reports."""
        self._advance()

    def finish(self, tally: Tally, processes: int = 1) -> None:
        """The end, however it came: the summary, then the failures, one line each."""
        self.close()
        if self._json:
            self._line(
                {
                    "event": "summary",
                    "done": tally.done,
                    "again": tally.again,
                    "skipped": tally.skipped,
                    "unrecorded": tally.unrecorded,
                    "elsewhere": tally.elsewhere,
                    "failed": len(tally.failures),
                    "left": tally.left,
                    "left_out": self._left_out,
                    "error": tally.stopped,
                    "seconds": round(time.perf_counter() - self._start, 4),
                    "processes": processes,
                }
            )
        elif not self._single:
            seconds = time.perf_counter() - self._start
            by = f" by {processes} processes" if processes > 1 else ""
            noun = "picture" if self._total == 1 else "pictures"
            self._print(f"{self._total} {noun}: {tally.summary()}, in {seconds:.1f} s{by}")
            if self._left_out:
                self._notes(f"left out, as no pictures that are read: {by_suffix(self._left_out)}")
            if tally.unrecorded:
                self._notes(
                    f"of {tally.unrecorded} that exist it is not known with which settings they "
                    "were made: they were changed since, or made by an older version"
                )
        for source, reason in tally.failures:
            name = single_line(source)
            line = reason if reason.startswith(name) or self._single else f"{name}: {reason}"
            print(f"error: {line}", file=sys.stderr)
        if tally.stopped is not None:
            print(f"error: {tally.stopped}", file=sys.stderr)

    def _picture(self, job: Job, status: str, **fields: Any) -> None:
        line = {
            "event": "picture",
            "input": str(job.source),
            "output": str(job.target),
            "status": status,
            "input_size": None,
            "output_size": None,
            "seconds": None,
            "shares": None,
            "gmacs": None,
            "note": None,
            "model": None,
            "model_reason": None,
            "outdated": None,
            "error": None,
        }
        if job.class_map is not None:
            line["class_map"] = str(job.class_map)
        self._line(line | fields)

    def _line(self, content: dict[str, Any]) -> None:
        # In one piece: several processes may write to one pipe.
        sys.stdout.write(json.dumps(content) + "\n")
        sys.stdout.flush()

    def _notes(self, *sentences: str) -> None:
        for line in [line for sentence in sentences for line in indented(sentence)]:
            self._print(line, single=False)

    def _print(self, text: str, single: bool = True) -> None:
        if self._quiet:
            return
        text = single_line(text) if single else text
        if self._bars is not None and (self._to_stderr or sys.stdout.isatty()):
            self._bars.console.print(text, soft_wrap=True, markup=False, highlight=False)
        else:
            stream = sys.stderr if self._to_stderr else sys.stdout
            # A name may hold letters that the terminal's alphabet lacks.
            alphabet = stream.encoding or "utf-8"
            known = text.encode(alphabet, "backslashreplace").decode(alphabet)
            print(known, file=stream, flush=True)

    def _advance(self) -> None:
        if self._bars is None:
            return
        if self._picture_bar is not None:
            self._bars.remove_task(self._picture_bar)
            self._picture_bar = None
        if self._batch is not None:
            self._bars.advance(self._batch)


def _make_bars() -> Bars:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )

"""The loop over a batch: skip, claim, upscale, and continue after failures."""

from __future__ import annotations

import errno
import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from pcsr_lightning.atomic_io import remove_stale_temporaries
from pcsr_lightning.batch.claims import Claim, Unclaimed, claim_file, failure_mark
from pcsr_lightning.batch.inputs import STREAM
from pcsr_lightning.batch.models import RunModels
from pcsr_lightning.batch.one_picture import Done, UpscaleOptions, upscale_file
from pcsr_lightning.batch.outputs import Job, version
from pcsr_lightning.batch.records import Settings, write_record
from pcsr_lightning.batch.report import Reporter
from pcsr_lightning.batch.sharing import SharedCores, shared_cores
from pcsr_lightning.batch.tally import Tally
from pcsr_lightning.distributed import ProcessGroup
from pcsr_lightning.errors import (
    DONE,
    FAILED,
    PictureError,
    hold_interrupts,
    raise_if_interrupted,
)
from pcsr_lightning.inference.engine import Progress
from pcsr_lightning.weights import scale_warning

_log = logging.getLogger(__name__)

_POLL = 0.2
"""Seconds between two looks at what another process is working on."""
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_WORDS = ("no space left on device", "disk quota exceeded")


@dataclass
class Batch:
    """A run over pictures.

    Attributes:
        models: that pictures take.
        jobs: all of the run's, the same in every process.
        options: how each is upscaled.
        settings: what the results of each model depend on, by its name; kept beside them.
        overwrite: whether outputs that were there before are made again whatever they are.
        run: the run's own name, the same in every process of it.
        group: the processes that share the run.
        reporter: prints progress and results.
        threads: that the user asked for; ``None`` for this process's part of the cores.
        debug: whether to show traces.
        warned: whether it was said that a model was not trained for a picture's scale.
    """

    models: RunModels
    jobs: Sequence[Job]
    options: UpscaleOptions
    settings: Mapping[str, Settings]
    overwrite: bool
    run: str
    group: ProcessGroup
    reporter: Reporter
    threads: int | None = None
    debug: bool = False
    warned: bool = False

    def work(self) -> int:
        """Upscales what no other process does; returns the exit code."""
        tally = self.reporter.tally
        try:
            with shared_cores(self.jobs, self.threads, self.group) as cores:
                self._work(self._in_order(), cores)
        except BaseException:
            tally.left = max(0, len(self.jobs) - _accounted(tally))
            # A lone picture needs no account of what was done before.
            if len(self.jobs) > 1:
                self.reporter.finish(tally)
            raise
        finally:
            self.reporter.close()
        others = self.group.gather(tally)
        if self.group.rank:
            return DONE  # the first process reports what went wrong, and fails for all
        for other in others[1:]:
            tally.add(other)
        if self.group.size > 1:
            if not tally.stopped:
                tally.elsewhere = 0
            for job in self.jobs:
                remove_stale_files(job)
        self.reporter.finish(tally, self.group.size)
        return FAILED if tally.failures or tally.stopped else DONE

    def _in_order(self) -> list[tuple[Job, bool]]:
        """Our own share first, then the others', from the end: there they come last."""
        rank, size = self.group.rank, self.group.size
        own = [(job, True) for job in self.jobs[rank::size]]
        rest = [job for i, job in enumerate(self.jobs) if i % size != rank]
        return own + [(job, False) for job in reversed(rest)]

    def _work(self, jobs: Sequence[tuple[Job, bool]], cores: SharedCores) -> None:
        waiting = list(jobs)
        first = True
        while waiting:
            if not first:
                time.sleep(_POLL)
            busy = []
            for job, own in waiting:
                raise_if_interrupted()
                cores.divide()
                if self._visit(job, own) is Unclaimed.BUSY:
                    busy.append((job, own))
                if self.reporter.tally.stopped is not None:
                    return
            waiting, first = busy, False

    def _visit(self, job: Job, own: bool) -> Unclaimed | None:
        """Does a job, or finds that it is done; ``BUSY`` while another process works on it."""
        if job.target == STREAM:
            self._upscale(job)
            return None
        if job.refused is not None:
            if own:
                self.reporter.failed(job.source, job.target, job.refused)
            else:
                self.reporter.left_to_others()
            return None
        if job.before is not None and job.outdated is None and not self.overwrite:
            if own:
                remove_stale_files(job)
                self.reporter.skipped(job)
            else:
                self.reporter.left_to_others()
            return None
        with ExitStack() as held:
            try:
                if version(job.target) != job.before:
                    self._elsewhere(job)
                    return None
                job.target.parent.mkdir(parents=True, exist_ok=True)
                with hold_interrupts():  # or a signal would leave the claim's file behind
                    claim = Claim.take(job.target, self.run)
                    if isinstance(claim, Claim):
                        held.enter_context(claim)
            except OSError as error:
                cannot = PictureError(f"{job.target}: cannot be made there ({error.strerror})")
                cannot.__cause__ = error
                self._failed(job, cannot)
                return None
            if claim is Unclaimed.BUSY:
                return Unclaimed.BUSY
            if claim is Unclaimed.FAILED or (claim is Unclaimed.NO_LOCKS and not own):
                self.reporter.left_to_others()
            elif isinstance(claim, Claim):
                self._claimed(job, claim)
            else:
                if self.group.size > 1:
                    _log.warning("%s: no file locks here; the shares are fixed", job.target.parent)
                self._upscale(job)
            return None

    def _claimed(self, job: Job, claim: Claim) -> None:
        if version(job.target) != job.before:
            self._elsewhere(job)
            return
        _remove_stale_temporaries(job)  # of processes that were killed: nobody else works on it now
        if not self._upscale(job) and self.group.size > 1:
            claim.leave_failed()

    def _elsewhere(self, job: Job) -> None:
        # Within a group, whoever made it has reported it.
        if self.group.size > 1:
            self.reporter.left_to_others()
        else:
            self.reporter.skipped(job, elsewhere=True)

    def _upscale(self, job: Job) -> bool:
        progress = self.reporter.begin(job)
        try:
            done = upscale_file(self.models, job, self.options, _interruptible(progress))
        except BrokenPipeError:
            raise
        except Exception as error:  # whatever a picture can do to a library
            raise_if_interrupted()  # or a signal, in a library that makes an error of its own of it
            self._failed(job, error)
            return False
        if job.target != STREAM:
            self._record(job, done)
        self.reporter.done(job, done)
        if self.options.size is not None and not self.warned and self.group.rank == 0:
            self._warn_of_scale(done)
        return True

    def _warn_of_scale(self, done: Done) -> None:
        """For ``--size``: whether a picture was upscaled by what the model was not trained for."""
        scale = [H / h for H, h in zip(done.size, done.lr_size, strict=True)]
        a_pixel = 1 / min(done.lr_size)
        name = done.model.name
        warning = scale_warning(self.models.networks[name], name, scale, tolerance=a_pixel)
        if warning is not None:
            _log.warning("%s", warning)
            self.warned = True

    def _record(self, job: Job, done: Done) -> None:
        try:
            write_record(job.target, self.settings[done.model.name])
        except OSError as error:  # the result is there all the same
            _log.warning("%s: how it was made cannot be kept (%s)", job.target, error.strerror)

    def _failed(self, job: Job, error: Exception) -> None:
        if self.debug:
            traceback.print_exception(error)
        self.reporter.failed(job.source, job.target, error)
        if is_disk_full(error):
            tally = self.reporter.tally
            tally.left = len(self.jobs) - _accounted(tally)
            tally.stopped = (
                f"the disk is full ({job.target.parent}): free some space or name another OUT, and "
                "repeat the command: it does the rest"
            )


def _interruptible(report: Progress | None) -> Progress:
    """Checks for signals at every strip of a picture, too."""

    def progress(part: float) -> None:
        raise_if_interrupted()
        if report is not None:
            report(part)

    return progress


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the next file will fail for the same reason."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(words in str(error).lower() for words in _FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _accounted(tally: Tally) -> int:
    return tally.done + tally.skipped + tally.elsewhere + len(tally.failures)


def remove_stale_files(job: Job) -> None:
    """Removes the locks and temporaries that killed processes have left beside an output."""
    with suppress(OSError):  # where nothing can be removed, nothing is lost
        if not (claim_file(job.target).exists() or failure_mark(job.target).exists()):
            return
        claim = Claim.take(job.target, "")
        if isinstance(claim, Claim):
            with claim:
                _remove_stale_temporaries(job)


def _remove_stale_temporaries(job: Job) -> None:
    for path in (job.target, job.class_map):
        with suppress(OSError):  # the writer will meet and report it
            if path is not None:
                remove_stale_temporaries(path)

"""The pictures of a folder as a protocol wants them, each read by one of the processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pcsr_lightning.distributed import ALONE, ProcessGroup
from pcsr_lightning.errors import DataError, PictureError
from pcsr_lightning.evaluation.pairs import Pair, Protocol, make_pair
from pcsr_lightning.images import list_pictures, read_rgb8

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be measured, and why."""

    name: str
    reason: str


class Reader:
    """The pictures of a folder, degraded as a protocol wants them.

    Args:
        folder: of HR pictures; sub-folders too.
        scale: (vertical, horizontal).
        protocol: see :func:`make_pair`.
        processes: that share the pictures.

    Attributes:
        files: all that look like pictures.
        skipped: those that could not be used, in any process; filled by :meth:`each`.

    Raises:
        PictureError: no such folder, or no picture in it.
    """

    def __init__(
        self,
        folder: Path,
        scale: tuple[float, float],
        protocol: Protocol,
        processes: ProcessGroup = ALONE,
    ) -> None:
        self.folder, self.scale, self.protocol = folder, scale, protocol
        self.processes = processes
        self.files = processes.run_collectively(lambda: list_pictures(folder))
        self.skipped: list[Skipped] = []

    def each(
        self, work: Callable[[str, Pair], T], progress: bool = False, warn: bool = True
    ) -> list[T]:
        """What ``work`` makes of each picture that can be used, in the list's order.

        With several processes each does its share, and all of them get the whole list.

        Args:
            work: takes a picture's name within the folder, and its pair.
            progress: shows process 0's progress on stderr where that is a terminal.
            warn: logs the pictures that are left out; process 0 does.

        Raises:
            DataError: no picture was of use; names the first and what is wrong with it.
            PCSRError: what ``work`` raised in any process.
        """
        own = self.processes.run_collectively(
            lambda: list(self._own(work, progress, warn and self.processes.size == 1))
        )
        found: dict[str, T | Skipped] = {}
        for part in self.processes.gather(own):
            found.update(part)
        in_order = [found[self._name(path)] for path in self.files]
        self.skipped = [x for x in in_order if isinstance(x, Skipped)]
        if warn and self.processes.size > 1 and self.processes.rank == 0:
            for skipped in self.skipped:
                self._warn(skipped)
        if warn and self.skipped and self.processes.rank == 0:
            _log.warning("%d of %d pictures were left out", len(self.skipped), len(self.files))
        if len(self.skipped) == len(self.files):
            raise DataError(
                f"{self.folder}: none of its {len(self.files)} pictures can be used; the first, "
                f"{self.skipped[0].name}: {self.skipped[0].reason}"
            )
        return [x for x in in_order if not isinstance(x, Skipped)]

    def _own(
        self, work: Callable[[str, Pair], T], progress: bool, warn: bool
    ) -> Iterator[tuple[str, T | Skipped]]:
        """Name and result of every picture of this process's share."""
        files = self.processes.share(self.files)
        for path in _tracked(files, progress and self.processes.rank == 0):
            name = self._name(path)
            try:
                pair = make_pair(read_rgb8(path), self.scale, self.protocol)
            except PictureError as error:
                skipped = Skipped(name, str(error).removeprefix(f"{path}: "))
                if warn:
                    self._warn(skipped)
                yield name, skipped
                continue
            yield name, work(name, pair)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _warn(self, skipped: Skipped) -> None:
        _log.warning("%s is left out: %s", self.folder / skipped.name, skipped.reason)


def _tracked(files: Sequence[Path], progress: bool) -> Iterable[Path]:
    """The files, with a progress bar on stderr where someone can see it."""
    console = Console(stderr=True)
    if not (progress and console.is_terminal):
        yield from files
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("pictures", total=len(files))
        for path in files:
            bar.update(task, description=path.name[:40])
            yield path
            bar.advance(task)

"""What is kept of each visitor: in memory, for a while, and never more than a bound allows."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pcsr_lightning.app.all_heavy import AllHeavyRun
from pcsr_lightning.app.choices import MIDDLE, Choices, Ticket
from pcsr_lightning.app.loading import Loaded, Remedy, Window
from pcsr_lightning.app.measure import Meter
from pcsr_lightning.app.runs import FirstRun, Heavy, Run
from pcsr_lightning.images import Picture
from pcsr_lightning.inference import Session

if TYPE_CHECKING:
    from pcsr_lightning.app.files import FileJob

KEPT_SECONDS = 3600.0
"""After so long without a request a visitor is forgotten."""
KEPT_VISITORS = 64
KEPT_BYTES = 2 * 2**30
"""Features and finished pixels of all visitors together; those of the longest idle go first."""


@dataclass(frozen=True)
class Sent:
    """A file that was sent.

    Attributes:
        name: as the visitor knows it.
        path: where it is kept.
        size: ``(h, w)``, if it was looked at.
    """

    name: str
    path: Path
    size: tuple[int, int] | None = None


@dataclass
class Visitor:
    """One visitor's picture and all that was computed of it.

    Attributes:
        folder: for the files that the page shows; goes with the visitor.
        brought: how many pictures were brought.
        number: the newest picture's, as they were brought.
        loaded_number: that of ``loaded``; behind ``number`` until work on the old one has stopped.
        asked: when the newest request was made, as the browser counts.
        wanted: the newest request, always of picture ``number``; work on any other stops.
        refused: why the newest picture that was brought is not shown, until the next request.
        remedy: what the visitor may do about the last refusal with one click.
        comparing: the all-heavy run was asked for.
        sent: the files of the newest pictures; the first is the one that is shown.
        focus: which part of a large picture is looked at, as parts of height and width.
        window: that part; ``None`` if all is shown.
        part: what is upscaled: the picture or that part.
        job: files that are made, or have been, in the background.
        key: what ``session`` was made for: picture number, model, size and part.
        reference: a picture that the visitor gave to compare with, and its name.
        features: what the backbone's part of the first run took.
        spent: seconds that runs took since then.
        views: files that the page shows, by name.
        shown: the request whose result they are of.
        downloads: files to take away, oldest first.
        order: held for a moment by whoever changes ``number``, ``wanted`` or ``focus``.
        lock: held by whoever computes or changes what was computed.
    """

    folder: Path
    brought: int = 0
    number: int = 0
    loaded_number: int = 0
    loaded: Loaded | None = None
    asked: float = 0.0
    wanted: Ticket | None = None
    refused: str | None = None
    remedy: Remedy | None = None
    comparing: bool = False
    sent: list[Sent] = field(default_factory=list)
    focus: tuple[float, float] = MIDDLE
    window: Window | None = None
    part: Picture | None = None
    job: FileJob | None = None
    key: tuple[int, str, tuple[int, int], Window | None] | None = None
    reference: tuple[str, Tensor] | None = None
    session: Session | None = None
    alpha_1HW: Tensor | None = None
    heavy_run: AllHeavyRun | None = None
    features: Meter = field(default_factory=Meter)
    spent: float = 0.0
    first: FirstRun | None = None
    heavy: Heavy | None = None
    run: Run | None = None
    views: dict[str, Path] = field(default_factory=dict)
    shown: str | None = None
    downloads: list[Path] = field(default_factory=list)
    used: float = field(default_factory=time.monotonic)
    order: threading.Lock = field(default_factory=threading.Lock)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def bring(self) -> int:
        """The number of a picture that is being brought, to be taken before anything slow."""
        with self.order:
            self.brought += 1
            return self.brought

    def show(self, loaded: Loaded, sent: Sequence[Sent] = (), number: int | None = None) -> bool:
        """Takes a new picture; work on the old one stops, and its files go.

        Args:
            loaded: the picture.
            sent: the files that were sent with it.
            number: from :meth:`bring`.

        Returns:
            Whether it is shown: not if one that was brought later has come first.
        """
        number = self.bring() if number is None else number
        with self.order:
            newest = number > self.number
            if newest:
                self.number, self.focus = number, MIDDLE
                self.wanted = self.refused = None
        if newest:
            job, self.job = self.job, None
            with self.lock:
                newest = number == self.number
                if newest:
                    self.loaded, self.loaded_number, self.reference = loaded, number, None
                    made = [] if job is None or job.result is None else [job.result]
                    _delete(*(old.path for old in self.sent), *self.downloads, *made)
                    self.sent, self.downloads = list(sent), []
                    self.forget_work()
        if not newest:
            _delete(*(new.path for new in sent))
        return newest

    def look(self, focus: tuple[float, float]) -> None:
        """Another part of the picture is looked at."""
        with self.order:
            if self.loaded_number == self.number:
                self.focus = focus

    def want(self, asked: float, choices: Choices) -> bool:
        """Says what is wanted from now on; work on anything else stops.

        Args:
            asked: when, as the browser counts; requests may come in another order.
            choices: for the newest picture.

        Returns:
            Whether it is something new.
        """
        with self.order:
            ticket = self.number, replace(choices, focus=self.focus)
            if asked < self.asked or self.loaded is None:
                return False
            self.asked = asked
            if self.wanted == ticket:
                return False
            self.wanted, self.refused = ticket, None
            return True

    def end(self) -> None:
        """The visitor has gone: work stops, and nothing is kept."""
        number = self.bring()
        with self.order:
            self.number, self.wanted, self.job = number, None, None
        with self.lock:
            self.loaded = self.reference = None
            self.forget_work()
            shutil.rmtree(self.folder, ignore_errors=True)

    def forget_work(self) -> None:
        """Drops whatever can be computed again."""
        self.key = self.session = self.heavy_run = self.first = self.heavy = None
        self.run = self.shown = self.alpha_1HW = None
        self.part = self.window = None
        self.comparing = False
        _delete(*self.views.values())
        self.views = {}

    def new_file(self, suffix: str = ".png") -> Path:
        """A name that nobody can guess."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{secrets.token_urlsafe(16)}{suffix}"

    def keep_view(self, name: str, path: Path) -> None:
        """Shows a file under a name, in place of the one before, which stays for one more turn."""
        before, older = self.views.get(name), self.views.get(f"{name} before")
        if older is not None:
            older.unlink(missing_ok=True)
        self.views[name] = path
        if before is not None:
            # A browser may be about to fetch it.
            self.views[f"{name} before"] = before

    def keep_download(self, path: Path) -> None:
        """Keeps a file to take away, and the one before, which a browser may be fetching."""
        self.downloads.append(path)
        while len(self.downloads) > 2:
            self.downloads.pop(0).unlink(missing_ok=True)

    @property
    def fitting_reference(self) -> Tensor | None:
        """What the result can be compared with: the visitor's reference, or a sample's own."""
        size = None if self.session is None else self.session.size
        own = None if self.loaded is None else self.loaded.reference_3HW
        given = own if self.reference is None else self.reference[1]
        return given if given is not None and tuple(given.shape[1:]) == size else None

    @property
    def bytes(self) -> int:
        """Memory that :meth:`forget_work` frees, about."""
        if self.session is None:
            return 0
        H, W = self.session.size
        return self.session.bytes + 12 * H * W * ((self.run is not None) + (self.heavy is not None))


def _delete(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


class Visitors:
    """All visitors.

    Args:
        folder: for their files.
        seconds: after so long without a request a visitor is forgotten.
        visitors: how many are kept.
        bytes: of all their work together.
    """

    def __init__(
        self,
        folder: Path,
        seconds: float = KEPT_SECONDS,
        visitors: int = KEPT_VISITORS,
        bytes: int = KEPT_BYTES,
    ) -> None:
        self._folder, self._seconds, self._most, self._bytes = folder, seconds, visitors, bytes
        self._all: OrderedDict[str, Visitor] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._all)

    def of(self, page: str) -> Visitor:
        """The visitor of an open page, new if it is not known."""
        ended = []
        with self._lock:
            if page not in self._all:
                self._all[page] = Visitor(self._folder / secrets.token_urlsafe(16))
            self._all.move_to_end(page)
            visitor = self._all[page]
            visitor.used = time.monotonic()
            while len(self._all) > self._most:
                ended.append(self._all.popitem(last=False)[1])
        for old in ended:
            old.end()
        return visitor

    def end(self, page: str) -> None:
        """The visitor of a page has left."""
        with self._lock:
            visitor = self._all.pop(page, None)
        if visitor is not None:
            visitor.end()

    def sweep(self) -> None:
        """Forgets whoever was idle for too long, and the work of the longest idle beyond bounds."""
        now = time.monotonic()
        with self._lock:
            late = [page for page, v in self._all.items() if now - v.used > self._seconds]
            ended = [self._all.pop(page) for page in late]
            idle = list(self._all.values())
        for visitor in ended:
            visitor.end()
        held = sum(visitor.bytes for visitor in idle)
        for visitor in idle[:-1]:
            if held <= self._bytes:
                return
            if visitor.lock.acquire(blocking=False):  # whoever computes is not idle
                held -= visitor.bytes
                visitor.forget_work()
                visitor.lock.release()

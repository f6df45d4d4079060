"""The picture files of a folder: each real file once, without what other programs keep there."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images.formats import READ_SUFFIXES, is_picture

NOT_PICTURES = frozenset(
    {
        "__macosx",  # macOS, in ZIP files
        "@eadir", "#recycle", "#snapshot",  # Synology
        "@recycle", "@recently-snapshot",  # QNAP
        "$recycle.bin", "system volume information",  # Windows
        "lost+found",
    }
)  # fmt: skip
"""Folders of thumbnails, deleted files and the like, in lower case. Hidden ones need no name."""
_log = logging.getLogger(__name__)


def list_pictures(folder: str | Path) -> list[Path]:
    """All picture files in a folder and its sub-folders, sorted by path, each real file once.

    Links are followed, also to elsewhere; a file that is linked from within the folder too is
    listed under its own name. Hidden files and folders are left out, and :data:`NOT_PICTURES`.

    Raises:
        PictureError: no such folder, not a folder, or no picture in it.
    """
    accepted = ", ".join(READ_SUFFIXES)
    if str(folder) == "":
        raise PictureError("the name of the folder of pictures is empty: name a folder")
    folder = Path(folder)
    if not folder.exists():
        raise PictureError(f"{folder}: no such folder. Name a folder of pictures ({accepted}).")
    if not folder.is_dir():
        raise PictureError(f"{folder}: not a folder. Name the folder that holds the pictures.")
    walk = FolderWalk(folder, is_picture)
    found = list(walk.files())
    for unreadable, reason in walk.unreadable:
        _log.warning("%s is left out: %s", unreadable, reason)
    if not found:
        raise PictureError(
            f"{folder}: no picture in this folder or its sub-folders. Accepted: {accepted}."
        )
    return sorted(found)


class FolderWalk:
    """The visible files below a folder, each real file and folder once, however links are laid.

    Args:
        root: the folder; taken as it is, even if it is hidden.
        accept: says of a path whether its file is wanted; others are passed over.
        without: folders not to look into.
        depth: how many levels of folders to look into; all if not given.

    Attributes:
        unreadable: folders that could not be listed, and why; filled by :meth:`files`.
        doubles: links to files that were found under another name, with that name; likewise.
    """

    def __init__(
        self,
        root: Path,
        accept: Callable[[Path], bool],
        without: Sequence[Path] = (),
        depth: int | None = None,
    ) -> None:
        self._root, self._accept, self._depth = root, accept, depth
        self.unreadable: list[tuple[Path, str]] = []
        self.doubles: list[tuple[Path, Path]] = []
        self._seen: set[tuple[int, int]] = set()
        self._names: dict[str, Path] = {}  # of files, by their real paths
        for folder in without:
            # Not what was asked for itself: an output folder may be the input folder.
            if folder.is_dir() and not folder.samefile(root):
                self._seen.add(_identity(folder))

    def files(self) -> Iterator[Path]:
        """The files; links come last, so that what is in the folder has its own name."""
        waiting, linked_files = [self._root], list[Path]()
        while waiting:
            links: list[Path] = []
            for folder in waiting:
                yield from self._below(folder, links, linked_files)
            waiting = sorted(links)
        for path in sorted(linked_files):
            first = self._names.setdefault(os.path.realpath(path), path)
            if first == path:
                yield path
            else:
                self.doubles.append((path, first))

    def _below(self, folder: Path, links: list[Path], linked_files: list[Path]) -> Iterator[Path]:
        try:
            identity = _identity(folder)
            if identity in self._seen:
                return
            self._seen.add(identity)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self.unreadable.append((folder, f"cannot be listed ({error.strerror})"))
            return
        real = os.path.realpath(folder)
        deeper = self._depth is None or len(folder.relative_to(self._root).parts) + 1 < self._depth
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            try:
                is_folder = entry.is_dir()
            except OSError:
                is_folder = False  # a link to itself: a file, which fails to open
            if not is_folder:
                if not self._accept(path):
                    continue
                if entry.is_symlink():
                    linked_files.append(path)
                else:
                    self._names[os.path.join(real, entry.name)] = path  # noqa: PTH118 - quick
                    yield path
            elif deeper and entry.name.lower() not in NOT_PICTURES:
                if entry.is_symlink():
                    links.append(path)
                else:
                    yield from self._below(path, links, linked_files)


def _identity(folder: Path) -> tuple[int, int]:
    there = folder.stat()
    return there.st_dev, there.st_ino

"""Which files a command line means: files, folders, patterns, standard input."""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import READ_SUFFIXES, FolderWalk, is_picture
from pcsr_lightning.images.formats import UNREAD

STREAM = Path("-")
"""Standard input as a source, standard output as a target."""

_MAGIC = re.compile(r"[*?\[]")
_MOST_KINDS = 8


@dataclass(frozen=True)
class InputFile:
    """A picture to upscale.

    Attributes:
        path: where it is; ``-`` is standard input.
        place: its place below the output folder, a relative path.
    """

    path: Path
    place: Path


@dataclass
class Inputs:
    """What a command line's inputs came to.

    Attributes:
        found: the pictures, sorted by place, none twice.
        unreadable: folders that could not be listed, and why.
        doubles: links to files that were found under another name, with that name.
        left_out: how many files of a folder or pattern are no pictures, by their suffixes.
        folder: the one folder that was asked for, if it was one; results go beside it.
        single: the only input is a file named outright, or standard input.
    """

    found: list[InputFile] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    doubles: list[tuple[Path, Path]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    folder: Path | None = None
    single: bool = False


def find_inputs(words: Sequence[str], without: Sequence[Path]) -> Inputs:
    """Looks up the command line's inputs.

    What names an existing file or folder is that; what else has ``*``, ``?`` or ``[`` in it is a
    pattern, in which ``**`` stands for any number of folders. Files named outright are taken
    whatever their suffix; in folders and by patterns only pictures are found, each real file once,
    and nothing hidden, see :class:`~pcsr_lightning.images.FolderWalk`. A file without a suffix is
    known by its content.

    Args:
        words: names and patterns as typed.
        without: folders not to look into, such as the output's.

    Raises:
        PictureError: there is no such file or folder, or no picture in it.
    """
    if list(words) == ["-"]:
        return Inputs([InputFile(STREAM, Path("stdin"))], single=True)
    inputs = Inputs()
    for word in words:
        if word == "-":
            raise PictureError("-: standard input is one picture; do not name others beside it")
        path = Path(word)
        try:
            is_folder, is_there = path.is_dir(), path.exists()
        except OSError as error:
            raise PictureError(f"{path}: {error.strerror}") from error
        if is_folder:
            _add_folder(inputs, path, without, keep_name=len(words) > 1)
        elif os.path.lexists(path) or not _MAGIC.search(word):
            if not is_there:
                leads = "its symbolic link leads nowhere, or in a circle"
                reason = leads if path.is_symlink() else "no such file or folder"
                raise PictureError(f"{path}: {reason}")
            inputs.found.append(InputFile(path, Path(path.name)))
            inputs.single = len(words) == 1
        else:
            _add_pattern(inputs, word, without)
    inputs.found = _without_doubles(inputs.found)
    return inputs


def by_suffix(counts: Mapping[str, int]) -> str:
    """Numbers of files that are not read, most frequent first: ``2 .txt, 1 .jp2 (JPEG 2000)``."""
    kinds = sorted(counts.items(), key=lambda item: -item[1])
    words = [
        f"{n} {suffix or 'without a suffix'}" + (f" ({UNREAD[suffix]})" if suffix in UNREAD else "")
        for suffix, n in kinds[:_MOST_KINDS]
    ]
    others = sum(n for _, n in kinds[_MOST_KINDS:])
    return ", ".join(words + ([f"{others} others"] if others else []))


def _add_folder(
    inputs: Inputs,
    folder: Path,
    without: Sequence[Path],
    keep_name: bool,
) -> None:
    walk = FolderWalk(folder, lambda path: _is_wanted(inputs, path), without)
    found = list(walk.files())
    inputs.unreadable += walk.unreadable
    inputs.doubles += walk.doubles
    if not found and not walk.unreadable:
        raise PictureError(
            f"{folder}: no picture in this folder or those below; looked for "
            f"{', '.join(READ_SUFFIXES)}"
            + (f"; found {by_suffix(inputs.left_out)}" if inputs.left_out else "")
        )
    # Several folders would otherwise pour their files into one.
    above = Path(folder.resolve().name) if keep_name else Path()
    inputs.found += [InputFile(path, above / path.relative_to(folder)) for path in found]
    inputs.folder = None if keep_name else folder


def _add_pattern(inputs: Inputs, pattern: str, without: Sequence[Path]) -> None:
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    root, magic = Path(*parts[:fixed]), parts[fixed:]
    if not root.is_dir():
        raise PictureError(f"{pattern}: there is no folder {root}")
    depth = None if "**" in magic else len(magic)

    def fits(path: Path) -> bool:
        return matches(path.relative_to(root).parts, magic)

    walk = FolderWalk(root, lambda path: fits(path) and _is_wanted(inputs, path), without, depth)
    found = list(walk.files())
    inputs.unreadable += walk.unreadable
    inputs.doubles += walk.doubles
    if not found and not walk.unreadable:
        others = len(list(FolderWalk(root, fits, without, depth).files()))
        raise PictureError(
            f"{pattern}: no picture matches"
            + (f"; {others} other files do, none of {', '.join(READ_SUFFIXES)}" if others else "")
        )
    inputs.found += [InputFile(path, path.relative_to(root)) for path in found]


def _is_wanted(inputs: Inputs, path: Path) -> bool:
    """Whether it is a picture; others are counted."""
    if is_picture(path):
        return True
    inputs.left_out[path.suffix.lower()] += 1
    return False


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path's parts fit a pattern's; ``**`` fits any number of folders, none included."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        # At the end it means the files in them.
        rest = pattern[1:] or ("*",)
        return any(matches(parts[skip:], rest) for skip in range(len(parts)))
    return (
        bool(parts)
        and fnmatch.fnmatchcase(parts[0], pattern[0])
        and matches(parts[1:], pattern[1:])
    )


def _without_doubles(found: Sequence[InputFile]) -> list[InputFile]:
    """The same file named twice, by a pattern and by name say, is one picture."""
    first: dict[str, InputFile] = {}
    for one in found:
        first.setdefault(os.path.abspath(one.path), one)  # noqa: PTH100 - links stay what they are
    return sorted(first.values(), key=lambda one: (one.place, one.path))

"""Where each picture's result goes; what would overwrite an input or another result is refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pcsr_lightning.atomic_io import check_writable
from pcsr_lightning.batch.inputs import STREAM, InputFile, Inputs
from pcsr_lightning.errors import ConfigError, PictureError
from pcsr_lightning.images import FALLBACK, own_suffix

_SAME = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}

Version = tuple[int, int, int]
"""What identifies the file that was there before: inode, time and size."""


@dataclass(frozen=True)
class Job:
    """One picture to upscale, and where its result goes.

    Attributes:
        source: ``-`` is standard input.
        target: ``-`` is standard output.
        class_map: a second picture to write, if any.
        before: what was there under ``target`` when the run began.
        refused: why it cannot be done, if it cannot.
        outdated: how what was there differs from what is asked for, if that is known; it is made
            again.
        unrecorded: it is not known how what was there was made.
    """

    source: Path
    target: Path
    class_map: Path | None = None
    before: Version | None = None
    refused: str | None = None
    outdated: str | None = None
    unrecorded: bool = False


@dataclass(frozen=True)
class OutputOptions:
    """What the command line says about outputs.

    Attributes:
        out: as typed; ``None`` where it was left out, for results beside their inputs.
        name_suffix: added to a result's name, before the dot; ``None`` if not given.
        default_name_suffix: what is added instead where results lie beside their inputs.
        format: a suffix such as ``.png``, or ``None`` for the input's own.
        class_map: a file for one picture, a folder for several.
        overwrite: whether outputs that exist are made again.
        suffixes: those that can be written.
    """

    out: str | None
    name_suffix: str | None
    default_name_suffix: str
    format: str | None
    class_map: Path | None
    overwrite: bool
    suffixes: Collection[str]

    @property
    def folders(self) -> list[Path]:
        """Folders that hold outputs, so that nothing in them is an input."""
        named = [None if self.out in (None, "-") else Path(str(self.out)), self.class_map]
        return [path for path in named if path is not None and _is_folder(path)]


def plan_jobs(inputs: Inputs, options: OutputOptions) -> list[Job]:
    """One job a picture. What would overwrite an input or another result is refused, job by job.

    Raises:
        PictureError: no output can be: each is refused, or the suffix names no format, or the
            folder is missing.
        ConfigError: options that contradict each other or the number of inputs.
    """
    if inputs.single and _names_a_file(options.out, inputs.found[0]):
        jobs = [_single(inputs.found[0], options)]
    else:
        jobs = _several(inputs, options)
    jobs = _without_own_results(jobs, options.overwrite)
    makers = _makers(jobs)
    sources = {found: job.source for job in jobs if (found := _identity(job.source)) is not None}
    reasons = [_shared(job, makers) or _input(job, sources) for job in jobs]
    if jobs and all(reasons):
        raise PictureError(str(reasons[0]))
    return [
        replace(job, before=_version_now(job.target, len(jobs) == 1), refused=reason)
        for job, reason in zip(jobs, reasons, strict=True)
    ]


def version(path: Path) -> Version | None:
    """Which file is there under a name, or ``None``.

    Raises:
        OSError: it cannot be known; the name is too long, say, or a link in a circle.
    """
    if path == STREAM:
        return None
    try:
        there = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(there.st_mode):
        return None  # not a result that exists: writing it will say so
    return there.st_ino, there.st_mtime_ns, there.st_size


def _version_now(path: Path, alone: bool) -> Version | None:
    try:
        return version(path)
    except OSError as error:
        if alone:
            raise PictureError(f"{path}: cannot be made there ({error.strerror})") from error
        return None  # reported when it is this picture's turn: the others can be made


def _names_a_file(out: str | None, found: InputFile) -> bool:
    """Whether OUT names the one result itself, rather than a folder for it."""
    if out is None:
        return found.path == STREAM
    return out == "-" or not (out.endswith(("/", os.sep)) or _is_folder(Path(out)))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # such as a name that is too long
        raise PictureError(f"{path}: cannot be made there ({error.strerror})") from error


def _single(found: InputFile, options: OutputOptions) -> Job:
    target = STREAM if options.out is None else Path(options.out)
    if options.name_suffix is not None:
        raise ConfigError("--suffix is for results named after their inputs; here OUT is the name")
    paths = [path for path in (target, options.class_map) if path is not None and path != STREAM]
    for path in paths:
        _check_file(path, options.suffixes)
    if target != STREAM and options.format and _plain(target.suffix) != options.format:
        raise ConfigError(
            f"{target}: its suffix and --format {options.format[1:]} name two formats; drop one"
        )
    return Job(found.path, target, options.class_map)


def _check_file(path: Path, suffixes: Collection[str]) -> None:
    check_writable(path, PictureError)
    if path.suffix.lower() not in suffixes:
        raise PictureError(
            f"{path}: the suffix chooses the format; use one of {', '.join(suffixes)}"
            " (a folder that is to be made ends in /)"
        )


def _several(inputs: Inputs, options: OutputOptions) -> list[Job]:
    if options.out == "-":
        raise ConfigError("-: standard output takes one picture; name a folder for several")
    beside = options.out is None and inputs.folder is None
    name_suffix = options.name_suffix
    if name_suffix is None:
        name_suffix = options.default_name_suffix if beside else ""
    if "/" in name_suffix or os.sep in name_suffix:
        raise ConfigError(f"--suffix {name_suffix!r}: a part of a file's name, it cannot hold a /")
    folder = Path(options.out or "")
    if options.out is None and inputs.folder is not None:
        resolved = inputs.folder.resolve()
        folder = resolved.with_name(resolved.name + options.default_name_suffix)
        # Shown as it was typed where that is possible.
        if inputs.folder.name not in ("", ".."):
            folder = inputs.folder.with_name(folder.name)
    _check_folder_names([] if beside else [folder], options.class_map)
    one_map = inputs.single and options.class_map is not None and not options.class_map.is_dir()
    if one_map and options.class_map is not None:
        _check_file(options.class_map, options.suffixes)
    jobs = []
    for found in inputs.found:
        if found.path == STREAM:
            raise ConfigError("-: a picture from standard input has no name; name the output file")
        suffix = _suffix(own_suffix(found.path) or FALLBACK, options)
        name = f"{found.path.stem}{name_suffix}{suffix}"
        target = found.path.with_name(name) if beside else folder / found.place.with_name(name)
        class_map = options.class_map
        if class_map is not None and not one_map:
            class_map = class_map / found.place.with_name(f"{found.path.stem}{FALLBACK}")
        jobs.append(Job(found.path, target, class_map))
    return jobs


def _check_folder_names(outs: list[Path], class_map: Path | None) -> None:
    for path in outs:
        if path.exists() and not path.is_dir():
            raise PictureError(
                f"{path}: is a file; several pictures need a folder as OUT, the last argument (or "
                "-o FOLDER)"
            )
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise PictureError(f"{path}: cannot make files in {there}; name another folder")
    if class_map is not None and class_map.is_file():
        raise PictureError(f"{class_map}: is a file; --class-map needs a folder for several")


def _suffix(own: str, options: OutputOptions) -> str:
    """The result's, its own in its own spelling wherever it can stay."""
    if options.format is None:
        return own
    return own if _plain(own) == options.format else options.format


def _plain(suffix: str) -> str:
    return _SAME.get(suffix.lower(), suffix.lower())


def _place(path: Path) -> str:
    """A name of its own for each place; an output that is a link is not the file it leads to."""
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118


def _without_own_results(jobs: Sequence[Job], overwrite: bool) -> list[Job]:
    """Leaves out results of an earlier run: those beside their inputs are found as inputs."""
    targets = {_place(job.target): job for job in jobs if job.target != STREAM}
    kept = []
    for job in jobs:
        maker = None if job.source == STREAM else targets.get(_place(job.source))
        if maker is None or maker is job:
            kept.append(job)
        elif overwrite:
            raise PictureError(
                f"{job.source}: is an input, and --overwrite would replace it by the result of "
                f"{maker.source}; name an output folder, or inputs without it"
            )
    return kept


def _makers(jobs: Sequence[Job]) -> dict[str, list[Path]]:
    """For each file to write, the inputs it is made from."""
    makers: dict[str, list[Path]] = {}
    for job in jobs:
        for path in (job.target, job.class_map):
            if path is not None and path != STREAM:
                makers.setdefault(os.path.realpath(path), []).append(job.source)
    return makers


def _shared(job: Job, makers: dict[str, list[Path]]) -> str | None:
    """Why a job's files would be written twice, if they would."""
    for path in (job.target, job.class_map):
        for source in [] if path is None else makers.get(os.path.realpath(path), []):
            if source != job.source:
                return (
                    f"{job.source}: would become {path}, and so would {source}; rename one, or "
                    "upscale them into two folders"
                )
    if job.class_map is not None and os.path.realpath(job.class_map) == os.path.realpath(
        job.target
    ):
        return f"{job.class_map}: the class map would overwrite the result"
    return None


def _input(job: Job, sources: dict[tuple[int, int], Path]) -> str | None:
    """Why a job would overwrite an input, under whatever name: by what is on the disk."""
    for path in (job.target, job.class_map):
        source = None if path is None else sources.get(_identity(path) or (0, 0))
        if source is not None:
            whose = "the input itself" if source == job.source else f"the input {source}"
            return f"{path}: is {whose}; choose another name for the output"
    return None


def _identity(path: Path) -> tuple[int, int] | None:
    if path == STREAM:
        return None
    try:
        there = path.stat()
    except OSError:
        return None
    return there.st_dev, there.st_ino

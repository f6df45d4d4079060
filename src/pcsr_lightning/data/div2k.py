"""DIV2K (Agustsson and Timofte, NTIRE 2017): found on disk, or fetched, verified and unpacked."""

import hashlib
import logging
import secrets
import shutil
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from rich import get_console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pcsr_lightning.data.datamodule import SRDataModule
from pcsr_lightning.errors import DataError

URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K"
_BLOCK = 1 << 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """A zip file of one folder `name`, holding the pictures numbered `first` to `last`."""

    name: str
    md5: str
    first: int
    last: int

    def missing(self, folder: Path) -> list[str]:
        """The pictures that `folder` lacks."""
        names = [f"{number:04d}.png" for number in range(self.first, self.last + 1)]
        present = {file.name for file in folder.glob("*.png")}
        return [name for name in names if name not in present]

    def find(self, root: Path) -> Path | None:
        """Where this archive lies unpacked: in `root`, or `root` is it, or its sibling."""
        for folder in (root / self.name, root / "DIV2K" / self.name, root.parent / self.name):
            beside = folder.parent == root.parent
            if folder.is_dir() and (not beside or root.name.startswith("DIV2K_")):
                return folder
        return None


TRAIN = Archive("DIV2K_train_HR", "bdc2d9338d4e574fe81bf7d158758658", 1, 800)
VALID = Archive("DIV2K_valid_HR", "9fcdda83005c5e5997799b69f955ff88", 801, 900)


class DIV2KDataModule(SRDataModule):
    """DIV2K: trains on 0001-0800 and validates on 0801-0900, or on `val_root` where one is given.

    Args:
        root: folder that holds, or is to hold, `DIV2K_train_HR` and `DIV2K_valid_HR`.
        download: fetch what `root` lacks.
        url: folder to fetch the two zip files from.
        options: `SRDataModule`'s other arguments.

    Raises:
        DataError: the pictures are not there and may not be, or cannot be, fetched.
    """

    train_archive, valid_archive = TRAIN, VALID

    def __init__(
        self, root: str | Path, download: bool = False, url: str = URL, **options: Any
    ) -> None:
        super().__init__(root, **options)
        self.download, self.url = download, url

    def prepare_data(self) -> None:
        if self.download:
            needed = [self.train_archive] + [self.valid_archive] * (not self.val_roots)
            for archive in needed:
                if archive.find(self.root) is None:
                    fetch(archive, self.url, self.root)
        super().prepare_data()

    def train_folder(self) -> Path:
        return self._folder(self.train_archive)

    def val_folders(self) -> dict[str, Path]:
        return self.val_roots or {"": self._folder(self.valid_archive)}

    def _folder(self, archive: Archive) -> Path:
        folder = archive.find(self.root)
        if folder is None:
            raise DataError(
                f"{self.root}: DIV2K's folder {archive.name} is not here. Name the folder that "
                "holds it with data.root=DIR, or fetch it there with data.download=true (about "
                "4 GB to fetch, 8 GB while unpacking). data=folder trains on any other pictures, "
                "data=sample on a few that come with this package."
            )
        missing = archive.missing(folder)
        if missing:
            raise DataError(
                f"{folder}: lacks {len(missing)} of DIV2K's {archive.last - archive.first + 1} "
                f"pictures ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}). "
                "Delete the folder and download it again with data.download=true, or train on what "
                "is there with data=folder."
            )
        return folder


def fetch(archive: Archive, base_url: str, root: Path) -> Path:
    """Downloads `archive` into `root`, verifies and unpacks it; an interrupted download is resumed.

    Returns:
        The unpacked folder, which is only there when it is complete.

    Raises:
        DataError: no connection, a wrong checksum, a zip file that cannot be unpacked, or no room.
    """
    url = f"{base_url.rstrip('/')}/{archive.name}.zip"
    _log.info("Fetching %s to %s.", url, root)
    part = root / f"{archive.name}.zip.part"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _download(url, part)
        found = _md5(part)
        if found != archive.md5:
            part.unlink()
            raise DataError(
                f"{url}: wrong checksum (md5 {found}, expected {archive.md5}); the download was "
                "deleted. Try again; if it stays wrong, fetch the file another way and name its "
                "unpacked folder with data.root=DIR."
            )
        _unpack(part, root, archive.name)
        part.unlink()
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DataError(
            f"{url}: cannot be fetched ({reason}). Check the connection and start again (the "
            "download is resumed), or name a folder that holds DIV2K with data.root=DIR."
        ) from error
    except OSError as error:
        raise DataError(
            f"{root}: cannot write here ({error.strerror or error}). Name a folder with about "
            "8 GB of room with data.root=DIR."
        ) from error
    return root / archive.name


def _download(url: str, part: Path) -> None:
    """Appends to `part` what it still lacks of `url`."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing lies beyond: all of it is here already
            return
        raise
    with response:
        if response.status != 206:  # the server sends all of it, whatever was asked for
            have = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        quiet = not get_console().is_terminal
        bar = Progress(*columns, transient=True, disable=quiet)
        with part.open("ab" if have else "wb") as out, bar as progress:
            task = progress.add_task(url.rsplit("/", 1)[-1], total=total, completed=have)
            while block := response.read(_BLOCK):
                out.write(block)
                progress.advance(task, len(block))
    size = part.stat().st_size
    if total is not None and size < total:
        raise ConnectionError(f"cut off after {size} of {total} bytes")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(path: Path, root: Path, name: str) -> None:
    """Unpacks the folder `name` beside its place, then moves it there."""
    part = root / f".{name}.part-{secrets.token_hex(4)}"
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if not (part / member).resolve().is_relative_to((part / name).resolve()):
                    raise DataError(
                        f"{path}: refused to unpack, '{member}' would be written outside {name}."
                    )
            archive.extractall(part)
        (part / name).rename(root / name)
    except (zipfile.BadZipFile, FileNotFoundError) as error:
        raise DataError(f"{path}: not a zip file with a folder {name} ({error}).") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)

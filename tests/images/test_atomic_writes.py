"""Written whole or not at all: full disks, interrupts, killed processes and what they leave."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pcsr_lightning import atomic_io
from pcsr_lightning.atomic_io import atomic_write, atomic_writer, remove_stale_temporaries
from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import SUFFIXES, Picture, read, write

FORK = multiprocessing.get_context("fork")  # spares the imports
NOISE = Picture(torch.rand(3, 300, 300, generator=torch.Generator().manual_seed(0)))
FORMATS = [suffix for suffix in SUFFIXES if suffix not in (".jpeg", ".tiff")]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=64k") != 0:
        pytest.skip(f"cannot mount a file system: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(os.fsencode(folder), 2)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_is_one_line_and_leaves_nothing(small_disk: Path, suffix: str) -> None:
    path = small_disk / f"out{suffix}"
    write(Picture(torch.rand(3, 4, 4)), path)
    before = path.read_bytes()
    with pytest.raises(PictureError) as caught:
        write(NOISE, path, quality=100)
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot write this picture (")
    assert "No space left on device" in message
    assert "\n" not in message
    assert names(small_disk) == [path.name]
    assert path.read_bytes() == before


def test_a_file_size_limit_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """The same where nothing may be mounted."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        for suffix in FORMATS:
            path = tmp_path / f"out{suffix}"
            with pytest.raises(PictureError, match="File too large") as refused:
                write(NOISE, path, quality=100)
            assert str(refused.value).startswith(f"{path}: ")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []


def test_an_unwritable_folder_is_one_line(folder_of_a_plain_user: Path) -> None:
    path = folder_of_a_plain_user / "out.png"
    path.parent.chmod(0o500)
    with pytest.raises(PictureError, match=r"out\.png: cannot write .*Permission denied"):
        write(NOISE, path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_exception_at_the_worst_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    (tmp_path / "out.png").write_text("older")

    def interrupt(*_: object) -> None:
        raise error

    monkeypatch.setattr(atomic_io.os, "replace", interrupt)
    with pytest.raises((error, PictureError)):
        write(NOISE, tmp_path / "out.png")
    assert names(tmp_path) == ["out.png"]
    assert (tmp_path / "out.png").read_text() == "older"


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "out [1]*.png"
    written = FORK.Event()

    def write_half() -> None:
        with atomic_writer(path) as file:
            file.write(b"half")
            file.flush()
            written.set()
            time.sleep(60)

    process = FORK.Process(target=write_half)
    process.start()
    assert written.wait(60)
    (half,) = names(tmp_path)
    assert half.startswith(".out [1]*.png.")
    assert half.endswith(".tmp")
    remove_stale_temporaries(path)
    assert names(tmp_path) == [half]  # still being written
    process.kill()
    process.join()
    (tmp_path / ".out 1.png.tmp").touch()  # of another file
    write(NOISE, path)
    assert names(tmp_path) == [".out 1.png.tmp", "out [1]*.png"]


def test_long_names(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 124 + ".png")
    write(NOISE, path)
    assert read(path).rgb.shape == (3, 300, 300)
    assert names(tmp_path) == [path.name]


def test_two_writers_of_one_file_both_end_well(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic_writer(path) as first:
        first.write(b"first")
        atomic_write(path, b"second")
        remove_stale_temporaries(path)
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["x"]


def test_links_are_written_through(tmp_path: Path) -> None:
    """What a killed process left beside the file itself is removed, too."""
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "real", tmp_path / "link"
    link.symlink_to("there/real")
    for content in (b"new", b"newer"):
        atomic_write(link, content)
        assert (real.read_bytes(), link.is_symlink()) == (content, True)
    (tmp_path / "there" / ".real.1.tmp").touch()
    remove_stale_temporaries(link)
    assert (names(tmp_path), names(tmp_path / "there")) == (["link", "there"], ["real"])
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        atomic_write(tmp_path / "circle", b"")
    assert names(tmp_path) == ["circle", "link", "there"]


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o755])
def test_permissions_stay(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "x"
    path.touch()
    path.chmod(mode)
    atomic_write(path, b"new")
    assert path.stat().st_mode & 0o777 == mode
    path.unlink()
    atomic_write(path, b"new")
    before = os.umask(0o077)
    os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~before


def test_kills_at_random_moments(tmp_path: Path) -> None:
    """Whatever is there under the name is whole."""
    path = tmp_path / "out.tif"
    program = (
        "import sys, torch\n"
        "from pcsr_lightning.images import Metadata, Picture, write\n"
        "picture = Picture(torch.rand(3, 200, 200), metadata=Metadata(resolution=(10, 10)))\n"
        "while True:\n    write(picture, sys.argv[1])\n"
    )
    for wait in (0.01, 0.07):
        process = subprocess.Popen([sys.executable, "-c", program, str(path)])
        while not path.exists():
            time.sleep(0.01)
        time.sleep(wait)
        process.kill()
        process.wait()
        assert read(path).rgb.shape == (3, 200, 200)
    remove_stale_temporaries(path)
    assert names(tmp_path) == ["out.tif"]

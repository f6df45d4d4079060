"""A disk that fills up in the midst of a run."""

from __future__ import annotations

import errno
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.batch.folders import files, fill, lines, upscale

from pcsr_lightning import images
from pcsr_lightning.batch.run import is_disk_full
from pcsr_lightning.cli.upscale import main
from pcsr_lightning.errors import PictureError


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:  # type: ignore[arg-type]
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_the_run(tmp_path: Path, tiny_disk: Path) -> None:
    source = tmp_path / "in"
    fill(source, 12, (30, 30))  # about 42 kB each at x4
    code, out, err = upscale(source, tiny_disk / "out", "--json")
    assert code == 1
    found, summary = lines(out)
    done = [one for one in found if one["status"] == "done"]
    assert [one["status"] for one in found] == ["done"] * len(done) + ["failed"]
    assert 0 < len(done) < 11
    assert summary["left"] == 12 - len(found) > 0
    assert len(err.splitlines()) == 2
    assert "No space left on device" in err.splitlines()[0]
    assert "the disk is full" in err.splitlines()[1]
    assert "repeat the command" in err.splitlines()[1]
    # What is there is whole.
    assert sorted(files(tiny_disk / "out")) == [Path(one["output"]).name for one in done]
    for one in done:
        assert images.read(one["output"]).rgb.shape == (3, 120, 120)
    # The same command on a larger disk does the rest.
    shutil.copytree(tiny_disk / "out", tmp_path / "larger")
    code, out, _ = upscale(source, tmp_path / "larger", "--json")
    assert code == 0
    assert lines(out)[1]["done"] == 12 - len(done)
    assert lines(out)[1]["skipped"] == len(done)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".bmp", ".webp"])
def test_a_disk_that_fills_up_within_a_result(tmp_path: Path, tiny_disk: Path, suffix: str) -> None:
    """The old file stays, and nothing of the new one."""
    source, target = fill(tmp_path, ["in.png"], (200, 190))[0], tiny_disk / f"out{suffix}"
    target.write_text("older")
    code, out, err = upscale(source, target, "--overwrite", "--quiet", "--quality", 100)
    assert (code, out, len(err.splitlines())) == (1, "", 2)
    assert f"out{suffix}: cannot write this picture" in err.splitlines()[0]
    assert "No space left on device" in err.splitlines()[0]
    assert "the disk is full" in err.splitlines()[1]
    assert files(tiny_disk) == {target.name: b"older"}


def test_a_class_map_whose_disk_fills_up(tmp_path: Path, tiny_disk: Path) -> None:
    """Without it the result is not done either."""
    source = fill(tmp_path, ["in.png"], (200, 190))[0]
    classes = tiny_disk / "classes.png"
    code, _, err = upscale(source, tmp_path / "out.png", "--class-map", classes, "--quiet")
    assert (code, len(err.splitlines())) == (1, 2)
    assert "classes.png: cannot write this picture" in err.splitlines()[0]
    assert list(files(tmp_path)) == ["in.png"]
    assert files(tiny_disk) == {}


def test_no_room_for_temporary_files(
    tmp_path: Path,
    tiny_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """Standard output gets all or nothing."""
    source = fill(tmp_path, ["in.png"], (200, 190))[0]
    monkeypatch.setattr(tempfile, "tempdir", str(tiny_disk))
    assert main([str(source), "-", "--format", "bmp"]) == 1
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert b"No space left on device" in err
    assert files(tiny_disk) == {}


def test_files_of_limited_size(tmp_path: Path) -> None:
    """The system cuts a file off in the midst of a write."""
    fill(tmp_path / "in", ["a.png"], (60, 60))
    fill(tmp_path / "in", ["b.png"], (8, 8))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    try:
        done = upscale("in", "out", "--quiet", cwd=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.code == 1
    [line] = done.err.splitlines()
    assert "a.png" in line
    assert "File too large" in line
    assert list(files(tmp_path / "out")) == ["b.png"]


def test_what_a_full_disk_looks_like() -> None:
    assert is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    wrapped = PictureError("out.png: cannot write")
    wrapped.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert is_disk_full(wrapped)
    assert is_disk_full(PictureError("unable to write (system error: No space left on device)"))
    assert not is_disk_full(OSError(errno.EFBIG, "File too large"))
    assert not is_disk_full(PictureError("out.png: no permission"))

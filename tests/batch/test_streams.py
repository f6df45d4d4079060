"""Pictures through standard input and output, and bars on a terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.batch.folders import files, fill, upscale

from pcsr_lightning.batch import one_picture
from pcsr_lightning.cli.upscale import main


def test_standard_input_and_output(tmp_path: Path) -> None:
    source = fill(tmp_path, ["a.jpg"])[0]
    assert upscale(source, tmp_path / "b.png")[0] == 0
    command = [sys.executable, "-m", "pcsr_lightning.upscale", "-", "-", "--format", "png"]
    with source.open("rb") as piped:
        done = subprocess.run(command, stdin=piped, capture_output=True)
    assert done.returncode == 0
    assert done.stdout == (tmp_path / "b.png").read_bytes()
    assert done.stderr.startswith(b"standard output: 40x48 in ")
    assert sorted(files(tmp_path)) == ["a.jpg", "b.png"]


class _Stdin:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


def test_standard_input_in_its_own_format(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    source = fill(tmp_path, ["a.jpg"])[0]
    monkeypatch.setattr(sys, "stdin", _Stdin(source.read_bytes()))
    assert main(["-", "--quiet"]) == 0
    out, err = capfdbinary.readouterr()
    assert out.startswith(b"\xff\xd8\xff")
    assert err == b""
    monkeypatch.setattr(sys, "stdin", _Stdin(b""))
    assert main(["-", str(tmp_path / "b.png")]) == 1
    assert b"nothing came from standard input" in capfdbinary.readouterr().err
    monkeypatch.setattr(sys, "stdin", _Stdin(b"no picture"))
    assert main(["-", "-"]) == 1
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert err.startswith(b"error: standard input: cannot read")


def test_standard_input_is_not_read_for_ever(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not beyond what tells that it is no picture, nor beyond what the largest one takes."""
    for data, most, says in (
        (b"\0" * 10_000, 64, "cannot read this picture"),
        (fill(tmp_path, ["a.png"])[0].read_bytes() + b"\0" * 10_000, 2001, "more than 2,000"),
    ):
        stdin = _Stdin(data)
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(one_picture, "_FEWEST_BYTES", 1200)
        assert main(["-", str(tmp_path / "b.png"), "--max-pixels", "100"]) == 1
        assert stdin.buffer.tell() == most
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert says in line


@pytest.mark.parametrize(
    ("name", "words"),
    [("stdin", ["-", "b.png"]), ("stdout", ["a", "-"]), ("stdout", ["a", "--json"])],
)
def test_closed_streams_are_told_of(
    name: str,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, name, None)
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "is closed" in capsys.readouterr().err


CLOSED = """
import os, sys
from pcsr_lightning.cli.command import run_command
def task():
    with open(sys.argv[1], "w") as file:
        print("nobody reads this")
        os.write(2, b"nor this")
        file.write(f"{file.fileno() > 2} {sys.stdin.read()!r}")
    return 7
sys.exit(run_command(task, False))
"""


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell closes them")
def test_no_file_takes_a_closed_stream_s_place(tmp_path: Path) -> None:
    """Or what a library says of a picture would be written into it."""
    shell = 'exec "$0" -c "$1" "$2" <&- >&- 2>&-'
    command = ["/bin/sh", "-c", shell, sys.executable, CLOSED, str(tmp_path / "told")]
    assert subprocess.run(command, timeout=60, check=False).returncode == 7
    assert (tmp_path / "told").read_text() == "True ''"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals here")
def test_bars_are_for_terminals(tmp_path: Path) -> None:
    """On stderr, so that what is piped on stays clean."""
    fill(tmp_path / "in", ["large.png"], (200, 400))
    fill(tmp_path / "in", ["small.png"])
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pcsr_lightning.upscale", "in", "out", "--json", "--threads", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    drawn = b""
    while True:
        try:
            part = os.read(ours, 10_000)
        except OSError:  # closed at the other end
            break
        if not part:
            break
        drawn += part
    os.close(ours)
    assert process.stdout is not None
    out = process.stdout.read().decode()
    assert process.wait() == 0
    assert [json.loads(line)["event"] for line in out.splitlines()] == [
        *("picture", "picture", "summary")
    ]
    # From the first moment, before PyTorch is imported, and before the first strip.
    shown = drawn.decode()
    signs = ["starting ...", "loading the model ...", "reading large.png", "reading small.png"]
    places = [shown.index(sign) for sign in signs]
    assert places == sorted(places)
    assert "pictures" in shown

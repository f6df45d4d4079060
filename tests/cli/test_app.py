"""The command's messages and errors; the page itself is met in tests/browser."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from tests.commands import run_command

from pcsr_lightning.app.server import free_port
from pcsr_lightning.cli.app import main

DOOR = [sys.executable, "-m", "pcsr_lightning.app"]


def test_help_is_quick_and_needs_no_gradio() -> None:
    code = (
        "import sys\n"
        "try: import pcsr_lightning.cli.app as command; command.main(['--help'])\n"
        "except SystemExit: print([m for m in ('torch', 'gradio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--max-pixels" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_gradio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main([]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "pip install -e '.[demo]'" in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "0"], "1 to 65535"),
        (["--max-pixels", "many"], "at least 1"),
        (["--threads", "0"], "at least 1"),
        (["picture.png"], "unrecognized"),
    ],
)
def test_wrong_usage(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"cannot listen on 127.0.0.1, port {port}" in line


def test_a_free_port_is_found() -> None:
    port = free_port("127.0.0.1", None)
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", port))
        mine.listen()
        assert free_port("127.0.0.1", None) > port


def test_served_told_and_ended(tmp_path: Path) -> None:
    """The whole command: an unknown model in one line, then the page until it is told to end."""
    env = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    port = str(free_port("127.0.0.1", None))
    wrong = run_command("app", "--port", port, "--model", "nobody", env={"TMPDIR": str(tmp_path)})
    assert wrong.code == 1
    [line] = wrong.err.splitlines()
    assert "no model is called 'nobody'" in line
    words = ["--port", port, "--model", "fsrcnn-pcsr-x4", "--threads", "1"]
    process = subprocess.Popen(
        [*DOOR, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout is not None
    url = process.stdout.readline().split()[0]
    assert url == f"http://127.0.0.1:{port}/"
    with urllib.request.urlopen(url) as answer:
        page = answer.read().decode()
    # Nobody reads files that are not the page's.
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with pytest.raises(HTTPError, match="403"):
        urllib.request.urlopen(f"{url}gradio_api/file={secret}")
    secret.unlink()
    for elsewhere in ("fonts.googleapis", "cdnjs", "unpkg", "jsdelivr"):
        assert elsewhere not in page
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (130, "interrupted")
    assert list(tmp_path.iterdir()) == []

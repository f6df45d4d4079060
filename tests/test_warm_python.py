"""What many tests start instead of ``python``: it must behave like it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.warm_python import warm_python

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the ordinary interpreter is used here"
)


@pytest.mark.parametrize("python", [sys.executable, None], ids=["python", "warm"])
def test_it_is_like_the_real_one(python: str | None, tmp_path: Path) -> None:
    python = python or warm_python()
    (tmp_path / "mine.py").write_text("import sys\nsys.exit(f'{__name__} {sys.argv[1:]}')\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "x"), "MINE": "3"}
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "elsewhere.py").touch()

    def run(*words: str, fds: tuple[int, ...] = ()) -> tuple[int, str, str]:
        done = subprocess.run(
            [python, *words], cwd=tmp_path, env=env, input="in", capture_output=True, text=True,
            pass_fds=fds, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    for words in (("-m", "mine"), ("mine.py",), ("-B", "-u", "-X", "utf8", "-m", "mine")):
        assert run(*words, "a", "-b") == (1, "", "__main__ ['a', '-b']\n")
    code = "import elsewhere, os, sys; print(sys.stdin.read(), os.environ['MINE'], sys.argv)"
    assert run("-c", code, "x") == (0, "in 3 ['-c', 'x']\n", "")
    code, _, error = run("-c", "1 / 0")
    assert (code, "ZeroDivisionError" in error) == (1, True)
    assert run("-c", "import os; os.kill(os.getpid(), 15)")[0] == -signal.SIGTERM
    assert run("-c", "import sys; sys.exit(3)")[0] == 3
    reader, writer = os.pipe()
    assert run("-c", f"import os; os.write({writer}, b'told')", fds=(writer,))[0] == 0
    os.close(writer)
    assert os.read(reader, 9) == b"told"
    assert os.read(reader, 9) == b""  # nobody holds it open
    os.close(reader)


def test_signals_reach_the_command(tmp_path: Path) -> None:
    code = "import os, time; print(os.getpid(), flush=True)\nwhile True: time.sleep(0.05)"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(
            [warm_python(), "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            its_id = int(process.stdout.readline())
            assert its_id != process.pid
            process.send_signal(number)
            ended = {signal.SIGINT: 1, signal.SIGTERM: -15, signal.SIGKILL: -9}
            assert process.wait(20) == ended[number]
        for _ in range(200):
            if not Path(f"/proc/{its_id}").exists():
                break
            time.sleep(0.02)
        assert not Path(f"/proc/{its_id}").exists()

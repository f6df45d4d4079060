"""The command in a process of its own, whose time and memory are watched; models to be spoilt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.commands import run_command
from tests.safety.hostile import HARM
from tests.small import small_pcsr

from pcsr_lightning.networks import PCSR
from pcsr_lightning.weights import save

ADDRESS_SPACE = 16 * 2**30
"""Bytes a process may map: PyTorch's libraries and thread stacks alone map several GiB."""


@dataclass
class Watched:
    """A command that has ended.

    Attributes:
        slowest: seconds between two lines of stdout, at most.
        peak: most memory in use, bytes.
    """

    code: int = 0
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    slowest: float = 0.0
    peak: int = 0

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The lines of ``--json``."""
        return [json.loads(line) for line in self.stdout]


@pytest.fixture(scope="session")
def watched() -> Callable[..., Watched]:
    """``watched(*words)``: ``python -m pcsr_lightning.upscale`` as users run it."""
    return _watched


@pytest.fixture(scope="session")
def unwatched() -> Callable[..., Watched]:
    """``unwatched(*words)``: the same in this process, where nothing is measured."""

    def call(*words: object) -> Watched:
        code, out, err = run_command("upscale", *words)
        return Watched(code, out.splitlines(), err.splitlines())

    return call


# A process keeps, as its own peak, that of the process it was made from until it became another
# program. The command is therefore started by one that is small, not by the tests.
_LAUNCHER = """
import os, resource, sys
report, limit, *command = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
_, status, used = os.wait4(os.posix_spawn(command[0], command, os.environ), 0)
with open(report, "w") as file:
    print(os.waitstatus_to_exitcode(status), used.ru_maxrss, file=file)
"""


def _watched(*words: object, seconds: float = 300) -> Watched:
    with tempfile.TemporaryFile("w+") as errors, tempfile.NamedTemporaryFile("r") as report:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, report.name, str(ADDRESS_SPACE)]
        process = subprocess.Popen(
            [*launcher, sys.executable, "-m", "pcsr_lightning.upscale", *map(str, words)],
            stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        late = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
        late.start()
        done, last = Watched(), None
        assert process.stdout is not None
        for line in process.stdout:
            now = time.monotonic()
            # The first line comes after the imports.
            done.slowest = max(done.slowest, 0.0 if last is None else now - last)
            last = now
            done.stdout.append(line.rstrip("\n"))
        process.stdout.close()
        process.wait()
        late.cancel()
        errors.seek(0)
        done.stderr = errors.read().splitlines()
        done.code, maxrss = map(int, report.read().split())
    done.peak = maxrss * 1024
    return done


@pytest.fixture
def nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In an empty folder, where every payload here would leave a file."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(HARM).exists()


@pytest.fixture
def model(tmp_path: Path) -> PCSR:
    return small_pcsr()


@pytest.fixture
def file(model: PCSR, tmp_path: Path) -> Path:
    return save(model, tmp_path / "m")


@pytest.fixture
def content(model: PCSR) -> dict[str, Any]:
    """What a stage's checkpoint holds."""
    facts = {"network": model.config(), "stage": "2", "backbone": "fsrcnn", "num_classes": 2}
    state = {f"network.{key}": value for key, value in model.state_dict().items()}
    return {"hyper_parameters": facts, "state_dict": state, "pytorch-lightning_version": "2.6.0"}

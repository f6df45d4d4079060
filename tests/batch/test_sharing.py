"""Processes that write into one folder divide the cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pcsr_lightning.batch.outputs import Job
from pcsr_lightning.batch.sharing import shared_cores
from pcsr_lightning.distributed import ALONE, ProcessGroup

OTHER = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(8)
from pcsr_lightning.batch.outputs import Job
from pcsr_lightning.batch.sharing import shared_cores
from pcsr_lightning.distributed import ALONE
with shared_cores([Job(Path("a"), Path(sys.argv[1]))], None, ALONE, {}) as cores:
    cores.divide()
    print(torch.get_num_threads(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def eight_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


def threads(folder: Path, asked: int | None = None, **environment: str) -> int:
    jobs = [Job(Path("a"), folder / "sub" / "a.png"), Job(Path("b"), folder / "b.png")]
    with shared_cores(jobs, asked, ALONE, environment) as cores:
        cores.divide()
        return torch.get_num_threads()


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OTHER, folder / "x.png"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_cores_are_divided_while_others_are_at_work(tmp_path: Path, eight_threads: None) -> None:
    assert threads(tmp_path) == 8
    other = start(tmp_path)
    assert other.stdout is not None
    assert other.stdout.readline() == "8\n"
    assert threads(tmp_path) == 4
    assert torch.get_num_threads() == 8  # afterwards as before
    # Who was asked for a number takes that number.
    assert threads(tmp_path, asked=3) == 8
    assert threads(tmp_path, OMP_NUM_THREADS="8") == 8
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert len(list(tmp_path.iterdir())) == 1
    assert threads(tmp_path) == 8
    assert list(tmp_path.iterdir()) == []


def test_torchrun_says_one_thread_unasked(
    tmp_path: Path, eight_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    jobs = [Job(Path("a"), tmp_path / "a.png")]
    group = ProcessGroup(size=2, local_size=2, launcher="torchrun")
    said = {"OMP_NUM_THREADS": "1"}
    with shared_cores(jobs, None, group, said), shared_cores(jobs, None, group, said) as cores:
        cores.divide()
        assert torch.get_num_threads() == 3


def test_where_nothing_can_be_written(tmp_path: Path, eight_threads: None) -> None:
    """Writing the results will say why."""
    (tmp_path / "file").touch()
    assert threads(tmp_path / "file") == 8

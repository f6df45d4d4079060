"""Commands as users type them: in this process, or in one of their own.

    done = run_command("evaluate", "model=m.safetensors", cwd=folder)
    assert (done.code, done.err) == (0, "")

A command runs in this process unless the test is about the process: signals, kills, several
processes, what Python does at its end, pipes. Those take :func:`start`.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TextIO

import lightning.pytorch  # noqa: F401  # its log has a handler from now on
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from pcsr_lightning.cli.main import main
from pcsr_lightning.networks import BACKBONES

SMALL_TRAINING = (
    "backbone=fsrcnn",
    "backbone.args={d:8,s:4,m:1}",
    "stage.queries=64",
    "data=sample",
    "data.lr_crop=8",
    "data.batch_size=2",
    "data.downscale_factors=[1.0]",
    "data.val_limit=1",
    "threads=1",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
)
"""Settings of ``train`` with which a step takes milliseconds."""


class Done(NamedTuple):
    """A command that has ended: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


def run_command(
    name: str,
    *words: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    code: int | None = None,
) -> Done:
    """``pcsr NAME WORDS`` in this process, which is afterwards as it was.

    Args:
        name: of the sub-command; ``python -m pcsr_lightning.NAME`` is the same.
        words: its arguments.
        cwd: where it runs; here if not given.
        env: environment variables to add.
        code: the exit code that the test expects; any if not given.
    """
    done = in_process(lambda: main([name, *map(str, words)]), cwd or Path.cwd(), env)
    assert code in (None, done.code), done.out[-3000:] + done.err[-3000:]
    return done


def in_process(
    task: Callable[[], int | None], cwd: Path, env: Mapping[str, str] | None = None
) -> Done:
    """Runs ``task`` as if it were a whole program: it may exit, and change what it likes."""
    with pytest.MonkeyPatch.context() as patch, _put_back(), _streams() as (out, err):
        for key, value in (env or {}).items():
            patch.setenv(key, value)
        patch.chdir(cwd)
        patch.syspath_prepend(cwd)
        patch.setattr(sys, "argv", ["pcsr"])
        code = _exit_code(task)
        sys.stdout.flush()
        sys.stderr.flush()
        return Done(code, *(_content(file) for file in (out, err)))


def run_script(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """The ``main`` of a benchmark that takes its words from ``sys.argv`` and sets the threads."""
    monkeypatch.setattr("sys.argv", ["script", *map(str, words)])
    threads = torch.get_num_threads()
    try:
        module.main()
    finally:
        torch.set_num_threads(threads)


@contextmanager
def trainings_in_process() -> Iterator[None]:
    """Within it ``replay`` and ``release`` do not start a process for each of their trainings."""

    def train(arguments: Sequence[str], cwd: Path | None = None) -> int:
        done = run_command("train", *arguments, cwd=cwd)
        sys.stderr.write(done.out + done.err)
        return done.code

    with pytest.MonkeyPatch.context() as patch:
        for caller in ("training.replay", "release.experiment"):
            patch.setattr(f"pcsr_lightning.{caller}.train_in_own_process", train)
        yield


def start(
    module: str, *words: object, python: tuple[str, ...] = (sys.executable,), **options: Any
) -> subprocess.Popen[str]:
    """``python -m MODULE WORDS`` in a process of its own, its stdout and stderr in pipes."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([*python, "-m", module, *map(str, words)], **options)


def _exit_code(task: Callable[[], int | None]) -> int:
    try:
        return task() or 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0


@contextmanager
def _streams() -> Iterator[tuple[TextIO, TextIO]]:
    """Files that take stdout and stderr, those of started processes and C libraries too."""
    old = sys.stdout, sys.stderr
    kept = [os.dup(number) for number in (1, 2)]
    file = partial(tempfile.TemporaryFile, "w+", encoding="utf-8", newline="")
    with file() as out, file() as err:
        for number, file in ((1, out), (2, err)):
            os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (
            open(number, "w", buffering=1, closefd=False)  # noqa: SIM115
            for number in (1, 2)
        )
        loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch")]
        handlers = [h for log in loggers for h in log.handlers if type(h) is logging.StreamHandler]
        streams = [handler.setStream(sys.stderr) for handler in handlers]
        try:
            yield out, err
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = old
            for handler, stream in zip(handlers, streams, strict=True):
                handler.setStream(stream)
            for number, file in zip((1, 2), kept, strict=True):
                os.dup2(file, number)
                os.close(file)


def _content(file: TextIO) -> str:
    file.seek(0)
    return file.read()


@contextmanager
def _put_back() -> Iterator[None]:
    """Within it, a command may change what belongs to the whole process."""
    root, threads = logging.getLogger(), torch.get_num_threads()
    handlers, level, environment = root.handlers[:], root.level, dict(os.environ)
    modules, backbones = set(sys.modules), dict(BACKBONES)
    hydra_config = HydraConfig.instance().cfg
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(environment)
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = hydra_config
        for name in set(BACKBONES) - set(backbones):
            del BACKBONES[name]
        for name in set(sys.modules) - modules:  # a user's own
            folders = Path(getattr(sys.modules[name], "__file__", None) or "/").parents
            # The environment may lie in the current folder; numba cannot be imported twice.
            if Path.cwd() in folders and Path(sys.prefix) not in folders:
                del sys.modules[name]

"""A training in a process of its own, for commands that go on with what it has trained."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def train_in_own_process(arguments: Sequence[str], cwd: Path | None = None) -> int:
    """Runs ``python -m pcsr_lightning.train``; returns its exit code.

    Ctrl-C reaches both processes, and the training saves first; so it is waited for. A SIGTERM to
    this process alone is handed on.

    Args:
        arguments: of the command.
        cwd: the folder where it runs; this one if not given.
    """
    # Standard output is for what the command that called prints.
    command = [sys.executable, "-m", "pcsr_lightning.train", *arguments]
    process = subprocess.Popen(command, stdout=sys.stderr, cwd=cwd)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
    finally:
        signal.signal(signal.SIGTERM, before)

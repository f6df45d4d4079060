"""Folders of small pictures, the command that upscales them, and what it leaves and prints."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests import commands

from pcsr_lightning.batch.records import RECORD_NAME

upscale = functools.partial(commands.run_command, "upscale")
"""The command in this process."""
MULTI = ["--model", "carn-pcsr-multi"]
"""Without it each picture chooses its model, and a line says which."""


def start(*words: object, python: tuple[str, ...] = (sys.executable,)) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return commands.start("pcsr_lightning.upscale", *words, python=python)


def fill(folder: Path, names: Sequence[str] | int, size: tuple[int, int] = (10, 12)) -> list[Path]:
    """Writes noisy pictures under these names; ``size`` is width, height."""
    if isinstance(names, int):
        names = [f"{i:03}.png" for i in range(names)]
    paths = []
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(values).save(path)
        paths.append(path)
    return paths


def lines(stdout: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What a run with ``--json`` printed: an object for each picture, and the last line's."""
    objects = [json.loads(line) for line in stdout.splitlines()]
    assert [o["event"] for o in objects] == ["picture"] * (len(objects) - 1) + ["summary"]
    return objects[:-1], objects[-1]


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too but for records, and what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != RECORD_NAME
    }

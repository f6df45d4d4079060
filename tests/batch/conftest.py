"""Folders of small pictures, and the command as users type it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.warm_python import warm_python

from pcsr_lightning.cli.upscale import main

Fill = Callable[..., list[Path]]
Lines = tuple[list[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="session")
def fill() -> Fill:
    """``fill(folder, names, size)``: noisy pictures under these names, ``size`` width first."""

    def make(
        folder: Path, names: Sequence[str] | int, size: tuple[int, int] = (10, 12)
    ) -> list[Path]:
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

    return make


@pytest.fixture
def door(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``door(*words)``: the command in this process; exit code, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """``start(*words)``: the command in a process of its own, begun.

    ``launcher`` starts it instead of a ``python`` whose imports are done.
    """

    def begin(*words: object, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*(launcher or (warm_python(),)), "-m", "pcsr_lightning.upscale", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.fixture(scope="session")
def lines() -> Callable[[str], Lines]:
    """``lines(stdout)``: the pictures' objects and the last line's, of a run with --json."""

    def read(stdout: str) -> Lines:
        objects = [json.loads(line) for line in stdout.splitlines()]
        assert [o["event"] for o in objects] == ["picture"] * (len(objects) - 1) + ["summary"]
        return objects[:-1], objects[-1]

    return read


@pytest.fixture(scope="session")
def files() -> Callable[[Path], dict[str, bytes]]:
    """``files(folder)``: every file below a folder, hidden ones too, and what is in it."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return read

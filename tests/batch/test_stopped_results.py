"""Runs killed, interrupted and terminated while a result is being written row by row."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.batch.folders import files, start, upscale

WORDS = ("--class-map", "classes.png", "--overwrite", "--quiet", "--threads", "1")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run makes of one large picture."""
    folder = tmp_path_factory.mktemp("undisturbed")
    values = np.random.default_rng(0).integers(0, 256, (270, 300, 4), np.uint8)
    Image.fromarray(values).save(folder / "in.png")
    upscale(*words_in(folder), code=0)
    return files(folder)


def words_in(folder: Path) -> list[object]:
    words = [folder / word if word.endswith(".png") else word for word in WORDS]
    return [folder / "in.png", folder / "out.png", *words]


def begin(folder: Path) -> subprocess.Popen[str]:
    """A run of which some, but not all, of the result is in a file."""
    process = start(*words_in(folder))
    while process.poll() is None:
        halves = folder.glob(".out.png*.tmp")
        if any(half.stat().st_size for half in halves):
            break
        time.sleep(0.005)
    return process


def prepare(folder: Path, undisturbed: dict[str, bytes]) -> None:
    (folder / "in.png").write_bytes(undisturbed["in.png"])
    (folder / "out.png").write_text("older")


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "terminated\n")],
)
def test_stopped(
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    word: str,
) -> None:
    """The old file is still there, and nothing else."""
    prepare(tmp_path, undisturbed)
    process = begin(tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", word)
    assert files(tmp_path) == {"in.png": undisturbed["in.png"], "out.png": b"older"}


@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_killed(undisturbed: dict[str, bytes], tmp_path: Path, kills: int) -> None:
    """What has its name is whole, and the next run removes what is left of the others."""
    prepare(tmp_path, undisturbed)
    moments, landed = random.Random(0), 0
    for _ in range(kills):
        process = begin(tmp_path)
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        landed += process.returncode == -signal.SIGKILL
        seen = {name: data for name, data in files(tmp_path).items() if not name.startswith(".")}
        assert seen.pop("out.png") in (b"older", undisturbed["out.png"])
        assert seen.items() <= undisturbed.items()
    assert landed >= 0.5 * kills
    assert upscale(*words_in(tmp_path)) == (0, "", "")
    assert files(tmp_path) == undisturbed

"""Runs killed, interrupted and terminated at random moments, and what the next one finds."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.batch.folders import files, fill, lines, start, upscale


def visible(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not Path(name).name.startswith(".")}


def versions(folder: Path) -> dict[str, tuple[int, int]]:
    """What tells whether a file was made again."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.mark.parametrize(
    ("kills", "pictures"), [(2, 120), pytest.param(50, 1000, marks=pytest.mark.slow)]
)
def test_killed_again_and_again(tmp_path: Path, kills: int, pictures: int) -> None:
    source, target, whole = tmp_path / "in", tmp_path / "out", tmp_path / "whole"
    fill(source, [f"{'sub/' if i % 3 == 0 else ''}{i:04}.png" for i in range(pictures)])
    upscale(source, whole, "--quiet", "--threads", 1, code=0)
    expected = files(whole)
    assert len(expected) == pictures

    moments = random.Random(20)
    told: Counter[str] = Counter()
    complete: dict[str, tuple[int, int]] = {}
    landed = 0
    for _ in range(kills):
        process = start(source, target, "--json", "--threads", 1)
        assert process.stdout is not None
        out = ""
        if moments.random() < 0.9:
            # A moment in the midst of the work rather than of the imports.
            while '"done"' not in out and (line := process.stdout.readline()):
                out += line
            time.sleep(moments.uniform(0, 0.15))
        else:
            time.sleep(moments.uniform(0, 2.5))  # imports and all
        process.send_signal(signal.SIGKILL)
        out += process.communicate()[0]
        landed += process.returncode == -signal.SIGKILL
        # A line may be cut off, a file never is.
        statuses = [json.loads(line) for line in out.splitlines() if line.endswith("}")]
        told.update(s["input"] for s in statuses if s.get("status") == "done")
        there = versions(target) if target.exists() else {}
        assert complete.items() <= there.items()  # none was made twice
        found = visible(files(target)) if target.exists() else {}
        assert found.items() <= expected.items()  # all are whole
        complete = there
    assert landed >= 0.9 * kills
    assert 0 < len(complete) < pictures  # the kills met work, and left some

    done = upscale(source, target, "--json", "--threads", 1)
    assert (done.code, done.err) == (0, "")
    made, summary = lines(done.out)
    told.update(line["input"] for line in made if line["status"] == "done")
    assert summary["done"] == pictures - len(complete)
    assert summary["skipped"] == len(complete)
    assert set(told.values()) == {1}
    assert complete.items() <= versions(target).items()
    assert files(target) == expected  # and nothing hidden is left


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_stopped(
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    word: str,
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    fill(source, 12, (40, 40))
    process = start(source, target, "--json", "--threads", 1)
    assert process.stdout is not None
    first = process.stdout.readline()
    # Twice: a terminal and a launcher both pass it on.
    process.send_signal(number)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == f"{word}\n"
    found, summary = lines(first + out)
    made = files(target)
    assert sorted(made) == sorted(Path(one["output"]).name for one in found)
    assert (summary["done"], summary["left"]) == (len(found), 12 - len(found))
    assert 0 < len(found) < 12
    assert upscale(source, target, "--quiet")[0] == 0
    assert len(files(target)) == 12
    assert made.items() <= files(target).items()

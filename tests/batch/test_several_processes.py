"""Several processes on one folder: every picture is made, and none twice."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.batch.folders import files, fill, start, upscale

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def test_two_processes_of_one_run(tmp_path: Path) -> None:
    """Under torchrun, with a bad file, and with a result that exists and is to be made again."""
    source, target = tmp_path / "in", tmp_path / "out"
    # The first process's share takes far longer, so the second has to help out.
    fill(source, [f"{i:03}.png" for i in range(0, 16, 2)], (40, 40))
    fill(source, [f"{i:03}.png" for i in range(1, 16, 2)])
    (source / "bad.png").write_bytes(b"no picture")
    target.mkdir()
    (target / "000.png").write_bytes(b"older")
    process = start(source, target, "--json", "--overwrite", "--threads", 1, python=TORCHRUN)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    told = [json.loads(line) for line in out.splitlines()]
    by_status = Counter((one["input"], one["status"]) for one in told[:-1])
    assert set(by_status.values()) == {1}
    assert Counter(status for _, status in by_status) == {"done": 16, "failed": 1}
    summary = told[-1]
    assert summary["event"] == "summary"
    assert (summary["done"], summary["failed"], summary["processes"]) == (16, 1, 2)
    assert err.count("error: ") == 1
    assert "bad.png: cannot read" in err
    assert "INFO" not in err
    assert upscale(source, tmp_path / "alone", "--quiet")[0] == 1
    assert files(target) == files(tmp_path / "alone")


def test_two_commands_at_once(tmp_path: Path) -> None:
    """Which know nothing of each other; each ends when all is done."""
    source, target = tmp_path / "in", tmp_path / "out"
    fill(source, 16, (40, 40))
    commands = [start(source, target, "--json", "--threads", 1) for _ in range(2)]
    told = [process.communicate(timeout=300) for process in commands]
    assert [process.returncode for process in commands] == [0, 0]
    assert [err for _, err in told] == ["", ""]
    lines = [json.loads(line) for out, _ in told for line in out.splitlines()]
    statuses: dict[str, Counter[str]] = {}
    for line in lines:
        if line["event"] == "picture":
            statuses.setdefault(line["input"], Counter())[line["status"]] += 1
    assert len(statuses) == 16
    # Made by one, seen by the other.
    assert all(counts == {"done": 1, "skipped": 1} for counts in statuses.values())
    assert len(files(target)) == 16


@pytest.mark.slow
def test_errors_before_the_work_are_told_once(tmp_path: Path) -> None:
    process = start(tmp_path / "missing", tmp_path / "out", python=TORCHRUN)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.count("error: ") == 1
    assert "no such file or folder" in err
    assert not (tmp_path / "out").exists()


def test_processes_of_another_launcher_share_by_claims(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a place to meet; each works as if alone."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    fill(tmp_path / "in", 3)
    code, out, _ = upscale(tmp_path / "in", tmp_path / "out", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["processes"] == 1
    assert len(files(tmp_path / "out")) == 3

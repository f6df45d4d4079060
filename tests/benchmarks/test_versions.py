"""The benchmark of two versions runs them in turns."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("versions")
    monkeypatch.setattr(module, "has_bf16", lambda _: False)
    monkeypatch.setattr(module, "matrix_products", lambda _: lambda: None)
    return module


def words(before: Path, after: Path) -> list[str]:
    small = ["--sizes", "9x7", "--models", "fsrcnn-pcsr-x4", "--repeats", "1", "--threads", "1"]
    return [str(before), str(after), *small]


def test_two_checkouts(versions: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert versions.main(words(ROOT, ROOT)) == 0
    said = capsys.readouterr().out
    row = r"\| fsrcnn-pcsr-x4 \| 9x7 \| fp32 \| \d\.\d+ \| \d\.\d+ \| \d+\.\d\d \| \d+ \|"
    assert re.search(row, said), said


def test_no_checkout(
    versions: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert versions.main(words(tmp_path, ROOT)) == 1
    assert f"error: {tmp_path}: not a checkout" in capsys.readouterr().err

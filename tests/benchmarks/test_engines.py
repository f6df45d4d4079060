"""The benchmark of other engines: every way runs, and all of a network make the same picture."""

from __future__ import annotations

import importlib
import re
from importlib import util
from pathlib import Path

import pytest
from tests.commands import in_process
from tests.small import small_original, small_pcsr

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROUTED = "ours, exported, OpenVINO"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small networks instead of the released ones, and no reference data."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("PCSR_SHARED", str(tmp_path))
    ways, inputs = (importlib.import_module(name) for name in ("_ways", "_inputs"))
    engines = importlib.import_module("engines")
    monkeypatch.setattr(ways, "load_pcsr", lambda name: small_pcsr())
    monkeypatch.setattr(ways, "load_original", lambda name: small_original())
    monkeypatch.setattr(engines, "find_models", lambda *_: inputs.Models("", "original"))


def run(folder: Path, *words: str) -> dict[tuple[str, str], list[str]]:
    """The cells of each row, by way and precision."""
    words = ("--sizes", "16x12", "--backbones", "fsrcnn", "--repeats", "1", *words)
    # OpenVINO brings a log handler that closes what is stderr now, once Hydra sets up its own.
    engines = importlib.import_module("engines")
    assert in_process(lambda: engines.main([*words, "--out", str(folder)]), folder).code == 0
    lines = (folder / "engines.md").read_text().splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if re.match(r"\| (ours|orig)", line)]
    return {(row[0], row[1]): row[2:] for row in cells}


@pytest.mark.skipif(util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
def test_every_way_gives_its_networks_picture(small: None, tmp_path: Path) -> None:
    rows = run(tmp_path, "--cpu-time")
    fp32 = {way: (cells[-1], cells[2]) for (way, precision), cells in rows.items()
            if precision == "fp32"}  # fmt: skip
    originals = {cells for way, cells in fp32.items() if way.startswith("original")}
    routed = {cells for way, cells in fp32.items() if way.startswith("ours")}
    assert len(originals) == len(routed) == 1, fp32  # the same PSNR and GFLOPs
    expected = {"original, default layout", "original, our layout and strips", "ours"}
    expected |= {f"{who}, exported, onnxruntime" for who in ("original", "ours")}
    if util.find_spec("openvino") is not None:
        expected |= {f"{who}, exported, OpenVINO" for who in ("original", "ours")}
    assert set(fp32) == expected


def test_without_openvino_its_rows_are_left_out(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, find = ("openvino", "onnxruntime"), util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name in gone else find(name))
    rows = run(tmp_path)
    assert {way for way, _ in rows} == {
        "original, default layout", "original, our layout and strips", "ours",
    }  # fmt: skip
    said = "openvino is not installed; in the checkout: pip install -e '.[benchmarks]'"
    assert f"Left out: {ROUTED}, fp32, k = 0: {said}" in (tmp_path / "engines.md").read_text()

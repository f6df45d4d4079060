"""The benchmark of other engines: every way runs, and all of a network make the same picture."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROUTED = "ours, exported, OpenVINO"

# Small networks instead of the released ones. A process of its own: beside OpenVINO others of our
# tests crash, and its log handler closes their stderr.
BENCHMARK = """
import sys
from importlib import util
import _inputs, _ways, engines
from tests.small import small_original, small_pcsr

_ways.load_pcsr, _ways.load_original = lambda _: small_pcsr(), lambda _: small_original()
engines.find_models = lambda *_: _inputs.Models("", "original")
find, gone = util.find_spec, sys.argv.pop(1).split()
util.find_spec = lambda name: None if name in gone else find(name)
sys.exit(engines.main(sys.argv[1:]))
"""


def run(folder: Path, *words: str, gone: str = "") -> dict[tuple[str, str], list[str]]:
    """The cells of each row, by way and precision; without the packages ``gone``."""
    words = ("--sizes", "16x12", "--backbones", "fsrcnn", "--repeats", "1", *words)
    paths = [ROOT / "benchmarks", ROOT, os.environ.get("PYTHONPATH", "")]
    subprocess.run(
        [sys.executable, "-c", BENCHMARK, gone, *words, "--out", str(folder)],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PCSR_SHARED": str(folder)},
        check=True,
    )
    lines = (folder / "engines.md").read_text().splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if re.match(r"\| (ours|orig)", line)]
    return {(row[0], row[1]): row[2:] for row in cells}


@pytest.mark.skipif(util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
def test_every_way_gives_its_networks_picture(tmp_path: Path) -> None:
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


def test_without_openvino_its_rows_are_left_out(tmp_path: Path) -> None:
    rows = run(tmp_path, gone="openvino onnxruntime")
    assert {way for way, _ in rows} == {
        "original, default layout", "original, our layout and strips", "ours",
    }  # fmt: skip
    said = "openvino is not installed; in the checkout: pip install -e '.[benchmarks]'"
    assert f"Left out: {ROUTED}, fp32, k = 0: {said}" in (tmp_path / "engines.md").read_text()

"""Benchmarks of the published checkpoints, against those by the published implementation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pcsr_lightning.evaluation import benchmark
from pcsr_lightning.inference import Routing
from pcsr_lightning.networks import PCSR, Original


@pytest.mark.parametrize(
    ("backbone", "way"),
    [
        *(("fsrcnn", way) for way in ("original", "k=-1.0", "k=0.0", "k=1.0")),
        *(("carn", way) for way in ("original", "k=0.0")),
    ],
)
def test_set5_by_the_tables_protocol(
    shared: Path,
    published_pcsr: Callable[[str], PCSR],
    published_original: Callable[[str], Original],
    backbone: str,
    way: str,
) -> None:
    reference = json.loads((shared / "reference" / "benchmarks.json").read_text())
    theirs = reference[f"Set5/{backbone}"][way]
    if way == "original":
        model, routing = published_original(backbone), Routing()
    else:
        model = published_pcsr(backbone)
        routing = Routing(k=float(way.removeprefix("k=")), cost="proportional")
    ours = benchmark(model, shared / "images" / "Set5", 4, routing, "published").mean
    assert abs(ours.psnr - theirs["psnr"]) < 0.01
    assert ours.gflops_published == pytest.approx(theirs["gflops"], rel=0.005)
    assert abs(ours.share[0] - theirs.get("heavy", 1.0)) < 0.002

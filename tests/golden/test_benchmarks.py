"""Benchmarks of the published checkpoints, against those by the published implementation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from PIL import Image

from pcsr_lightning.evaluation import (
    Protocol,
    benchmark,
    make_pair,
    psnr,
    published_points,
    shaved_border,
)
from pcsr_lightning.images import list_pictures, read_rgb8
from pcsr_lightning.inference import RoutingConfig, Session, original_flops
from pcsr_lightning.networks import PCSR, Original

X4 = (4.0, 4.0)
KS = ["-1.0", "0.0", "0.5", "1.0", "2.0"]
SETS = [(f, b) for f in ("Set5", "Set14") for b in ("fsrcnn", "carn")]

Scores = dict[str, list[tuple[float, float, float]]]


@pytest.fixture(scope="session")
def theirs(reference: Path) -> dict[str, Any]:
    """Mean PSNR, GFLOPs and heavy share by folder, backbone and routing."""
    found: dict[str, Any] = json.loads((reference / "benchmarks.json").read_text())
    return found


@pytest.fixture(scope="session")
def routed(shared: Path, published_pcsr: Callable[[str], PCSR]) -> Callable[[str, str], Scores]:
    """PSNR, GFLOPs and heavy share of each picture, by routing. Each picture is analysed once."""
    known: dict[tuple[str, str], Scores] = {}
    routings = {f"k={k}": RoutingConfig(k=float(k), cost="proportional") for k in KS}
    routings["adm"] = RoutingConfig("adaptive")

    def get(folder: str, backbone: str) -> Scores:
        if (folder, backbone) not in known:
            scores: Scores = {name: [] for name in routings}
            for path in list_pictures(shared / "images" / folder):
                pair = make_pair(read_rgb8(path), X4, Protocol.PUBLISHED)
                session = Session(published_pcsr(backbone), pair.lr_13hw, 4)
                for name, routing in routings.items():
                    found = session.run(routing)
                    quality = psnr(found.image, pair.hr_13HW, shaved_border(X4))
                    score = (quality, found.flops.gflops_published, found.shares[0])
                    scores[name].append(score)
            known[folder, backbone] = scores
        return known[folder, backbone]

    return get


def means(scores: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    quality, gflops, heavy = (fmean(column) for column in zip(*scores, strict=True))
    return quality, gflops, heavy


@pytest.mark.parametrize(
    ("folder", "backbone"),
    [pytest.param(*s, marks=[] if s[0] == "Set5" else [pytest.mark.slow]) for s in SETS],
)
def test_originals(
    shared: Path,
    theirs: dict[str, Any],
    published_original: Callable[[str], Original],
    folder: str,
    backbone: str,
) -> None:
    model, pictures = published_original(backbone), shared / "images" / folder
    ours = benchmark(model, pictures, 4, protocol=Protocol.PUBLISHED)
    expected = theirs[f"{folder}/{backbone}"]
    assert abs(ours.mean.psnr - expected["original"]["psnr"]) < 0.001
    assert ours.mean.gflops_published == pytest.approx(expected["original"]["gflops"], rel=1e-4)
    each = [score.psnr for score in ours.images]
    assert each == pytest.approx(expected["per_image_psnr_original"], abs=0.002)


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize(("folder", "backbone"), SETS)
def test_every_k(
    theirs: dict[str, Any],
    routed: Callable[[str, str], Scores],
    folder: str,
    backbone: str,
    k: str,
) -> None:
    scores = routed(folder, backbone)[f"k={k}"]
    expected = theirs[f"{folder}/{backbone}"]
    quality, gflops, heavy = means(scores)
    assert abs(quality - expected[f"k={k}"]["psnr"]) < 0.001
    assert gflops == pytest.approx(expected[f"k={k}"]["gflops"], rel=5e-4)
    assert abs(heavy - expected[f"k={k}"]["heavy"]) < 0.0005
    if k == "0.0":
        each = [score[0] for score in scores]
        assert each == pytest.approx(expected["per_image_psnr_k0"], abs=0.002)


@pytest.mark.parametrize(("folder", "backbone"), SETS)
def test_adaptive(
    theirs: dict[str, Any], routed: Callable[[str, str], Scores], folder: str, backbone: str
) -> None:
    """Clusters start a little elsewhere than in the published code, so shares differ a little."""
    quality, gflops, heavy = means(routed(folder, backbone)["adm"])
    expected = theirs[f"{folder}/{backbone}"]["adm"]
    assert abs(quality - expected["psnr"]) < 0.01
    assert gflops == pytest.approx(expected["gflops"], rel=0.03)
    assert abs(heavy - expected["heavy"]) < 0.013


def test_a_whole_benchmark_is_the_sum_of_its_pictures(
    shared: Path, published_pcsr: Callable[[str], PCSR], routed: Callable[[str, str], Scores]
) -> None:
    routing = RoutingConfig(k=0.5, cost="proportional")
    model, pictures = published_pcsr("fsrcnn"), shared / "images" / "Set5"
    mean = benchmark(model, pictures, 4, routing, Protocol.PUBLISHED).mean
    expected = means(routed("Set5", "fsrcnn")["k=0.5"])
    assert (mean.psnr, mean.gflops_published, mean.share[0]) == pytest.approx(expected, rel=1e-9)


@pytest.fixture(scope="session")
def set14_by_12(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Set14 cut to multiples of 12, as the paper's appendix has it."""
    folder = tmp_path_factory.mktemp("Set14")
    for path in list_pictures(shared / "images" / "Set14"):
        with Image.open(path) as picture:
            width, height = (n // 12 * 12 for n in picture.size)
            picture.crop((0, 0, width, height)).save(folder / path.name)
    return folder


def printed(method: str) -> tuple[str, str]:
    """PSNR and GFLOPs of CARN on Set14 as the paper prints them."""
    [point] = [
        point
        for point in published_points("Set14", "carn", table="Appendix Table 1")
        if point.method == method
    ]
    return f"{point.psnr:.2f}", f"{point.gflops:.2f}"


def test_the_papers_pixels_of_set14(
    set14_by_12: Path, published_original: Callable[[str], Original]
) -> None:
    sizes = [
        make_pair(read_rgb8(path), X4, Protocol.PUBLISHED).lr_13hw.shape[-2:]
        for path in list_pictures(set14_by_12)
    ]
    flops = original_flops(published_original("carn"), sum(h * w for h, w in sizes))
    assert f"{flops.gflops_published / len(sizes):.2f}" == printed("original")[1]


@pytest.mark.slow
def test_the_papers_original_on_set14(
    set14_by_12: Path, published_original: Callable[[str], Original]
) -> None:
    mean = benchmark(published_original("carn"), set14_by_12, 4, protocol="published").mean
    assert (f"{mean.psnr:.2f}", f"{mean.gflops_published:.2f}") == printed("original")


@pytest.mark.slow
def test_the_papers_pcsr_on_set14(set14_by_12: Path, published_pcsr: Callable[[str], PCSR]) -> None:
    routing = RoutingConfig(k=1.05, cost="proportional")
    mean = benchmark(published_pcsr("carn"), set14_by_12, 4, routing, "published").mean
    assert (f"{mean.psnr:.2f}", f"{mean.gflops_published:.2f}") == printed("PCSR")

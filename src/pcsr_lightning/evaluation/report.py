"""What a benchmark found, as a table to read and as ``metrics.json`` to compute with."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

import pcsr_lightning
from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.evaluation.benchmark import Benchmark, PictureScore, Score
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.inference import Routing

METRICS = "metrics.json"
PLAIN_WIDTH = 1000
"""Columns where output is not a terminal: no line of a table is ever broken there."""


def routing_words(routing: Routing) -> str:
    """A routing in a few words: ``k = 0.5``, ``adaptive``, ``budget = 0.5``, ``class 1 alone``."""
    if routing.budget is not None:
        return f"budget = {routing.budget:g}"
    if routing.mode == "k":
        return f"k = {routing.k:g}"
    return "adaptive" if routing.single is None else f"class {routing.single} alone"


def build_table(
    result: Benchmark,
    label: str,
    per_image: bool = False,
    title: str = "",
    published: Sequence[PublishedPoint] = (),
) -> Table:
    """Bicubic and the model as rows: means, and with ``per_image`` each picture before them.

    Args:
        result: what to show.
        label: the model's name and mode.
        per_image: two more rows a picture.
        title: shown above.
        published: the paper's numbers, set below and marked as published.
    """
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE)
    table.add_column("", no_wrap=True)
    quality = ["PSNR, dB", "PSNR of Y, dB", "SSIM"]
    if result.images[0].lpips is not None:
        quality.append("LPIPS")
    cost = ["GMACs", "GFLOPs (published count)", "share, heaviest first", "s"]
    for heading in (*quality, *cost):
        table.add_column(heading, justify="right", no_wrap=True)
    if per_image:
        for score in result.images:
            _add_rows(table, score, f"{score.name}: bicubic", f"{score.name}: {label}")
        table.add_section()
    _add_rows(table, result.mean, "bicubic", label)
    if published:
        table.add_section()
    for point in published:
        dashes = ["-"] * (len(quality) - 1)
        table.add_row(
            f"{point.model} (published, {point.source})",
            "-" if point.psnr is None else decibels(point.psnr),
            *dashes,
            "-",
            "-" if point.gflops is None else f"{point.gflops:.3f}",
            "-",
            "-" if point.milliseconds is None else f"{point.milliseconds / 1000:.3f}",
        )
    return table


def _add_rows(table: Table, score: Score, bicubic: str, ours: str) -> None:
    simple = _quality(
        score.bicubic_psnr, score.bicubic_psnr_y, score.bicubic_ssim, score.bicubic_lpips
    )
    table.add_row(bicubic, *simple, "-", "-", "-", "-")
    table.add_row(
        ours,
        *_quality(score.psnr, score.psnr_y, score.ssim, score.lpips),
        f"{score.gmacs:.3f}",
        f"{score.gflops_published:.3f}",
        shares(score.share),
        f"{score.seconds:.3f}",
    )


def _quality(psnr: float, psnr_y: float, ssim: float, lpips: float | None) -> list[str]:
    # A picture too small for SSIM or LPIPS has none.
    parts = [ssim] if lpips is None else [ssim, lpips]
    rest = ["-" if math.isnan(x) else f"{x:.4f}" for x in parts]
    return [decibels(psnr), decibels(psnr_y), *rest]


def decibels(psnr: float) -> str:
    """``24.32``, or ``inf`` where nothing differs."""
    return f"{psnr:.2f}"


def shares(share: Sequence[float]) -> str:
    """``50.3 / 49.7 %``."""
    return " / ".join(f"{100 * s:.1f}" for s in share) + " %"


def print_table(table: Table, console: Console | None = None) -> None:
    """Prints a table: framed and fitted on a terminal, plain lines of any length elsewhere."""
    console = console or Console()
    if not console.is_terminal:
        table.box = None
        console.width = PLAIN_WIDTH
    console.print(table)


def metrics(result: Benchmark, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A benchmark in plain values, as ``metrics.json`` holds it.

    At the top level the means over the pictures: ``psnr``, ``psnr_y``, ``ssim``, ``gmacs``,
    ``gflops_published``, ``share`` (a list, heaviest class first), ``seconds`` and ``bicubic:
    {psnr, psnr_y, ssim}``; ``lpips`` and ``bicubic.lpips`` where it was measured. Under ``images``
    the same of every picture, with its ``name`` and ``size`` (height, width, as compared). Under
    ``skipped`` the ``name`` and ``reason`` of every picture left out. Then ``facts``.

    A PSNR is null where it is infinite: a picture that equals the truth after rounding. SSIM and
    LPIPS are null where a picture is too small for them, and then so are their means.
    """
    return {
        **_numbers(result.mean),
        "images": [_picture(score) for score in result.images],
        "skipped": [{"name": s.name, "reason": s.reason} for s in result.skipped],
        "pictures": len(result.images),
        **facts,
        "versions": versions(),
    }


def _numbers(score: Score) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "psnr": _finite(score.psnr),
        "psnr_y": _finite(score.psnr_y),
        "ssim": _finite(score.ssim),
        "gmacs": score.gmacs,
        "gflops_published": score.gflops_published,
        "share": list(score.share),
        "seconds": score.seconds,
        "bicubic": {
            "psnr": _finite(score.bicubic_psnr),
            "psnr_y": _finite(score.bicubic_psnr_y),
            "ssim": _finite(score.bicubic_ssim),
        },
    }
    if score.lpips is not None and score.bicubic_lpips is not None:
        numbers["lpips"] = _finite(score.lpips)
        numbers["bicubic"]["lpips"] = _finite(score.bicubic_lpips)
    return numbers


def _picture(score: PictureScore) -> dict[str, Any]:
    return {"name": score.name, "size": list(score.size), **_numbers(score)}


def _finite(value: float) -> float | None:
    # JSON knows neither infinity nor NaN.
    return value if math.isfinite(value) else None


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    return {
        "python": platform.python_version(),
        "pcsr_lightning": pcsr_lightning.__version__,
        "torch": torch.__version__,
        "torchmetrics": version("torchmetrics"),
    }


def write_metrics(content: Mapping[str, Any], folder: Path) -> Path:
    """Writes ``metrics.json`` into a folder, whole or not at all.

    Raises:
        ValueError: a number that JSON does not know, NaN or infinite.
    """
    path = folder / METRICS
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    atomic_write(path, (text + "\n").encode())
    return path

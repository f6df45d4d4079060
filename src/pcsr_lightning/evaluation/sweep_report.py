"""What a sweep found: a table, a figure of PSNR against FLOPs, and ``sweep.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.evaluation.figures import save_figure
from pcsr_lightning.evaluation.plots import OurPoint, psnr_flops
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.evaluation.report import decibels, routing_words, shares, versions
from pcsr_lightning.evaluation.sweep import Sweep, SweepPoint

SWEEP, FIGURE = "sweep.json", "psnr_flops.png"


def sweep_table(
    points: Sequence[SweepPoint],
    bicubic_psnr: float,
    published: Sequence[PublishedPoint] = (),
) -> Table:
    """A row a routing, in their order, with bicubic above and the paper's rows below.

    Args:
        points: what was measured.
        bicubic_psnr: dB.
        published: the paper's numbers.
    """
    table = Table(box=box.SIMPLE)
    table.add_column("", no_wrap=True)
    for heading in ("PSNR, dB", "GMACs", "GFLOPs (published count)", "share, heaviest first"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("bicubic", decibels(bicubic_psnr), "-", "-", "-")
    for p in points:
        table.add_row(
            routing_words(p.routing),
            # three decimals: neighbours on the curve differ by little
            f"{p.psnr:.3f}",
            f"{p.gmacs:.3f}",
            f"{p.gflops_published:.3f}",
            shares(p.share),
        )
    if published:
        table.add_section()
    for q in published:
        psnr = "-" if q.psnr is None else decibels(q.psnr)
        gflops = "-" if q.gflops is None else f"{q.gflops:.3f}"
        table.add_row(f"{q.model} (published, {q.source})", psnr, "-", gflops, "-")
    return table


def draw_sweep(
    points: Sequence[SweepPoint],
    path: Path,
    name: str,
    title: str = "",
    published: Sequence[PublishedPoint] = (),
) -> None:
    """PSNR against GFLOPs as a PNG file, with the paper's points of the same pictures.

    Args:
        points: what was measured.
        path: of the file.
        name: of the model.
        title: above the figure.
        published: the paper's points.
    """
    ours = [OurPoint(p.gflops_published, p.psnr, routing_words(p.routing)) for p in points]
    save_figure(psnr_flops(ours, published, name, title), path)


def sweep_content(found: Sweep, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What ``sweep.json`` holds: ``points`` (each with its ``routing``, ``psnr``, ``gmacs``,
    ``gflops_published`` and ``share``), ``bicubic``, ``pictures``, ``skipped`` and the facts.
    """
    return {
        "points": [asdict(p) for p in found.points],
        "bicubic": {"psnr": found.bicubic_psnr},
        "pictures": found.pictures,
        "skipped": [asdict(s) for s in found.skipped],
        **facts,
        "versions": versions(),
    }


def write_sweep(content: Mapping[str, Any], folder: Path) -> None:
    """Writes ``sweep.json``, whole or not at all."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    atomic_write(folder / SWEEP, (text + "\n").encode())

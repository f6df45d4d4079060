"""What an evaluation reports: a table to read, and ``metrics.json`` or ``sweep.json``."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import pcsr_lightning
from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.evaluation.benchmark import Benchmark
from pcsr_lightning.evaluation.measurement import Measurement, measured_fields
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.evaluation.sweep import Sweep
from pcsr_lightning.evaluation.tables import NAME, DataTable, number, numbers

OF_A_POINT = ("routing", "oracle", "k")
"""What points of one sweep differ in, besides what was measured."""
METRICS, SWEEP, FIGURE = "metrics.json", "sweep.json", "psnr_flops.png"


def benchmark_table(
    result: Benchmark,
    label: str,
    per_image: bool = False,
    title: str = "",
    published: Sequence[PublishedPoint] = (),
    bound: Sweep | None = None,
) -> DataTable[Measurement]:
    """Bicubic and the model as rows: means, and with ``per_image`` each picture before them.

    Args:
        result: what to show.
        label: the model's name and mode.
        per_image: two more rows a picture.
        title: shown above.
        published: the paper's numbers, set below and marked as published.
        bound: the same without refinement, and the oracle, set between.
    """

    def pair(row: Measurement, prefix: str = "") -> list[Measurement]:
        return [row.bicubic_row(f"{prefix}bicubic"), replace(row, name=f"{prefix}{label}")]

    each = [row for image in result.images for row in pair(image, f"{image.name}: ")]
    oracle = [] if bound is None else _named(bound.oracle)
    if bound is not None and bound.unrefined[0].routing != result.mean.routing:
        oracle.insert(0, replace(bound.unrefined[0], name=f"{label}, without refinement"))
    published_rows = [p.row() for p in published]
    sections = [each if per_image else [], pair(result.mean), oracle, published_rows]
    return DataTable([NAME, *numbers(result.images)], sections, title)


def _named(points: Sequence[Measurement]) -> list[Measurement]:
    return [replace(point, name=point.routing_name) for point in points]


def sweep_table(
    found: Sweep, published: Sequence[PublishedPoint] = (), title: str = ""
) -> DataTable[Measurement]:
    """A row a routing, with bicubic above, the oracle and the paper's rows below."""
    simple, precise = number("psnr"), number("psnr", text=".3f")
    # three decimals: neighbours on the curve differ by little
    psnr = replace(simple, cell=lambda row: (precise if row.share else simple).cell(row))
    rows, oracle = _named(found.points), _named(found.oracle)
    sections = [[rows[0].bicubic_row(), *rows], oracle, [p.row() for p in published]]
    costs = [number(name) for name in ("gmacs", "gflops_published", "share")]
    return DataTable([NAME, psnr, *costs], sections, title)


def metrics(
    result: Benchmark, metadata: Mapping[str, Any], bound: Sweep | None = None
) -> dict[str, Any]:
    """A benchmark in plain values, as ``metrics.json`` holds it.

    At the top level the means over the pictures: ``psnr``, ``psnr_y``, ``ssim``, ``ssim_y``,
    ``gmacs``, ``gflops_published``, ``share`` (a list, heaviest class first), ``seconds`` and
    ``bicubic: {psnr, psnr_y, ssim, ssim_y}``; ``lpips`` and ``bicubic.lpips`` where it was
    measured; under ``metrics`` and ``bicubic.metrics`` a user's own. Under ``images`` the same of
    every picture, with its ``name`` and ``size`` (height, width, as compared). Under ``skipped``
    the ``name`` and ``reason`` of every picture left out. Under ``unrefined`` and ``oracle_points``
    what ``bound`` has, as :func:`sweep_content` has it. Then what was measured (see
    :class:`~pcsr_lightning.evaluation.measurement.Measurement`), and ``metadata``.

    A PSNR is null where it is infinite: a picture that equals the ground truth after rounding. SSIM
    and LPIPS are null where a picture is too small for them, and then so are their means.
    """
    mean = result.mean
    return {
        **mean.numbers(),
        "images": [
            {"name": image.name, "size": list(image.size or ()), **image.numbers()}
            for image in result.images
        ],
        "skipped": [asdict(skipped) for skipped in result.skipped],
        **({} if bound is None else _oracle_content(bound)),
        **mean.setup(),
        **metadata,
        "versions": versions(),
    }


def sweep_content(found: Sweep, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep in plain values, as ``sweep.json`` holds it.

    Under ``points`` the means of every routing: ``routing``, ``k``, ``psnr``, ``gmacs``,
    ``gflops_published``, ``share`` and ``bicubic``. With an oracle, under ``unrefined`` the same
    without refinement, and under ``oracle_points`` the oracle at the cost of each routing, then at
    any: ``oracle`` is ``same`` or ``any``. Then ``bicubic``, ``skipped``, what was measured, and
    ``metadata``.
    """
    setup = found.points[0].setup()
    return {
        "points": _points_content(found.points),
        **(_oracle_content(found) if found.oracle else {}),
        "bicubic": found.points[0].numbers()["bicubic"],
        "skipped": [asdict(skipped) for skipped in found.skipped],
        **{key: value for key, value in setup.items() if key not in OF_A_POINT},
        **metadata,
        "versions": versions(),
    }


def _oracle_content(found: Sweep) -> dict[str, Any]:
    return {
        "unrefined": _points_content(found.unrefined),
        "oracle_points": _points_content(found.oracle),
    }


def _points_content(points: Sequence[Measurement]) -> list[dict[str, Any]]:
    return [
        {**{key: point.setup()[key] for key in OF_A_POINT}, **point.numbers()} for point in points
    ]


def measured_points(content: Mapping[str, Any]) -> list[Measurement]:
    """The points of a ``sweep.json``, or the means of a ``metrics.json``; then the oracle's."""
    apart = {*measured_fields(), "metrics"}  # what a point lacks was not measured of it
    setup = {key: value for key, value in content.items() if key not in apart}
    points = [*content.get("points", [content]), *content.get("oracle_points", ())]
    return [Measurement.from_json({**setup, **point}) for point in points]


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    return {
        "python": platform.python_version(),
        "pcsr_lightning": pcsr_lightning.__version__,
        "torch": torch.__version__,
        "kornia": version("kornia"),
    }


def write_json(content: Mapping[str, Any], path: Path) -> Path:
    """Writes ``metrics.json``, ``sweep.json`` or the like, whole or not at all.

    Raises:
        ValueError: a number that JSON does not know, NaN or infinite.
    """
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    atomic_write(path, (text + "\n").encode())
    return path

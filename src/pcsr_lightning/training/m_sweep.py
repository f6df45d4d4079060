"""One table for the jobs of a multirun with ``stage=all``: what each number of classes gives."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.distributed import launched_group
from pcsr_lightning.evaluation.jobs import job_folders
from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.published import PublishedPoint, published_points
from pcsr_lightning.evaluation.report import METRICS, write_json
from pcsr_lightning.evaluation.search import FAILED
from pcsr_lightning.evaluation.tables import (
    Column,
    DataTable,
    csv_table,
    number,
    print_path,
    print_table,
    scale_text,
)
from pcsr_lightning.training.runs_table import report_runs
from pcsr_lightning.weights import RECORD

SWEEP, SHEET, LATEX = "m_sweep.json", "m_sweep.csv", "m_sweep.tex"


@dataclass(frozen=True)
class Failure:
    """A job that ended without a result: its number, its overrides, and what happened."""

    job: int
    overrides: tuple[str, ...]
    error: str


class MSweepTable(Callback):
    """Set under ``hydra.callbacks`` in ``conf/train.yaml``."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Removes the failures of an earlier sweep in the same folder, which this one resumes."""
        if launched_group().rank > 0:
            return  # of torchrun's processes the first does it
        for folder in job_folders(Path(config.hydra.sweep.dir)):
            (folder / FAILED).unlink(missing_ok=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints a row for each model trained whole, and names the jobs that failed.

        Raises:
            SystemExit: with status 1 if a job failed.
        """
        if launched_group().rank > 0:
            return
        folder = Path(config.hydra.sweep.dir)
        trained, failures = gather(folder)
        if trained:
            report(trained, failures, folder, Console())
        report_runs(folder, Console())
        for failed in failures:
            overrides = " ".join(failed.overrides) or "no overrides"
            print(f"error: job {failed.job} ({overrides}): {failed.error}", file=sys.stderr)
        if failures:
            raise SystemExit(1)


def gather(folder: Path) -> tuple[dict[Path, Measurement], list[Failure]]:
    """The models of a multirun by their jobs' folders, and the jobs that failed.

    A model is named as the paper names it: ``carn-pcsr-3class``.
    """
    trained, failures = {}, []
    for path in job_folders(folder):
        if (path / FAILED).is_file():
            content = json.loads((path / FAILED).read_text(encoding="utf-8"))
            failures.append(Failure(int(path.name), tuple(content["overrides"]), content["error"]))
        elif not (path / RECORD).is_file():
            failures.append(Failure(int(path.name), (), f"it left no {RECORD} in {path}"))
        elif (path / METRICS).is_file():  # not where a single stage was trained
            found = Measurement.from_json(json.loads((path / METRICS).read_text(encoding="utf-8")))
            trained[path] = replace(found, model=f"{found.backbone}-pcsr-{found.classes}class")
    return trained, failures


def report(
    trained: Mapping[Path, Measurement], failures: Sequence[Failure], folder: Path, console: Console
) -> None:
    """Prints the table, and writes it as JSON, CSV and LaTeX."""
    measured = list(trained.values())
    beside = paper_rows(measured)
    table = sweep_table(measured, beside)
    print_table(table, console)
    rows = [
        {"job": int(path.name), **found.to_json(), "folder": str(path)}
        for path, found in trained.items()
    ]
    content = {
        "jobs": rows,
        "published": [asdict(point) for point in beside],
        "failed": [asdict(failed) for failed in failures],
    }
    write_json(content, folder / SWEEP)
    atomic_write(folder / SHEET, csv_table(rows).encode())
    atomic_write(folder / LATEX, table.latex().encode())
    for name in (SWEEP, SHEET, LATEX):
        print_path(folder / name, console)


def paper_rows(measured: Sequence[Measurement]) -> list[PublishedPoint]:
    """What Table 4 says of these backbones and scales (it knows CARN at x4 only)."""
    kinds = dict.fromkeys((m.backbone, m.scale) for m in measured)
    return [
        point
        for backbone, scale in kinds
        for point in published_points(backbone=backbone, scale=None, table="Table 4")
        if (point.scale, point.scale) == scale
    ]


def sweep_table(
    measured: Sequence[Measurement], published: Sequence[PublishedPoint] = ()
) -> DataTable[Measurement]:
    """A row a model as in Table 4 of PCSR (ECCV 2024), with the paper's own rows below.

    Theirs were measured on other pictures, which each of them names: PSNR and GFLOPs compare
    between the rows of one set of pictures only.
    """
    theirs, gflops = {point.row(): point for point in published}, number("gflops_published")

    def pictures(row: Measurement) -> str:
        return row.dataset if row in theirs else f"{row.pictures} of validation"

    columns = [
        Column[Measurement]("model", lambda row: row.name or row.model, "left"),
        Column("M", lambda row: _classes(theirs[row]) if row in theirs else str(row.classes)),
        Column("parameters", _parameters),
        Column("pictures", pictures),
        Column("scale", lambda row: scale_text(row.scale)),
        *map(number, ("psnr", "ssim", "gmacs")),
        Column(
            gflops.heading, lambda row: _gflops(theirs[row]) if row in theirs else gflops.cell(row)
        ),
        number("share"),
    ]
    return DataTable(columns, [measured, list(theirs)], "all numbers of classes")


def _parameters(row: Measurement) -> str:
    return f"{row.parameters:,}" if row.parameters else "-"


def _classes(point: PublishedPoint) -> str:
    """``"3"`` of ``CARN-PCSR-3class``."""
    last = point.model.rpartition("-")[2]
    return last.removesuffix("class") if last.endswith("class") else "-"


def _gflops(point: PublishedPoint) -> str:
    percent = "" if point.percent is None else f" ({point.percent}%)"
    return "-" if point.gflops is None else f"{point.gflops:.1f}{percent}"

"""One table for the jobs of a multirun with ``stage=all``: what each number of classes gives."""

from __future__ import annotations

import csv
import io
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.distributed import launched_group
from pcsr_lightning.errors import PCSRError
from pcsr_lightning.evaluation.gather import job_folders
from pcsr_lightning.evaluation.published import PublishedPoint, published_points
from pcsr_lightning.evaluation.report import METRICS, decibels, print_table, shares
from pcsr_lightning.weights import RECORD

log = logging.getLogger(__name__)

FAILED = "failed.json"
"""In the folder of a job of a multirun that ended without a result: what happened."""
SWEEP, SHEET = "m_sweep.json", "m_sweep.csv"


@dataclass(frozen=True)
class Row:
    """A job's model, as a row of Table 4.

    Attributes:
        job: its number in the sweep.
        model: such as ``carn-pcsr-3class``, like the paper's names.
        backbone: its name.
        classes: ``M``.
        parameters: trained values of the finished model.
        scale: it was measured at.
        pictures: it was measured on.
        psnr: dB, RGB, mean; ``None`` if a picture was met exactly.
        ssim: on RGB, mean; ``None`` where a picture is too small for it.
        gmacs: 10^9 multiply-adds really executed, mean.
        gflops_published: 10^9 operations by the published count, mean.
        share: of the pixels, by class, heaviest first.
        folder: of the job.
    """

    job: int
    model: str
    backbone: str
    classes: int
    parameters: int
    scale: float
    pictures: int
    psnr: float | None
    ssim: float | None
    gmacs: float
    gflops_published: float
    share: tuple[float, ...]
    folder: str


@dataclass(frozen=True)
class Failure:
    """A job that ended without a result: its number, its own words, and what happened."""

    job: int
    words: tuple[str, ...]
    error: str


class MSweepTable(Callback):
    """Set under ``hydra.callbacks`` in ``conf/train.yaml``."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forgets the failures of an earlier sweep in the same folder: it may go on now."""
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
        rows, failures = gather(folder)
        if rows:
            report(rows, failures, folder, Console())
        for failed in failures:
            words = " ".join(failed.words) or "no words of its own"
            print(f"error: job {failed.job} ({words}): {failed.error}", file=sys.stderr)
        if failures:
            raise SystemExit(1)


@contextmanager
def failure_kept(run_dir: Path, abrupt: bool = False) -> Iterator[None]:
    """Lets the other jobs of a multirun go on where one fails, and keeps what happened.

    Without it the first mistake of the user's would end the process, and with it the sweep.
    :class:`MSweepTable` names the failures in the end.

    Args:
        run_dir: of the job.
        abrupt: lets every error through, which ends the multirun.
    """
    try:
        yield
    except Exception as error:
        if abrupt:
            raise
        if not isinstance(error, PCSRError):
            log.exception("this job failed")
        text = " ".join(str(error).split()) or type(error).__name__
        content = {"overrides": list(HydraConfig.get().overrides.task), "error": text}
        run_dir.mkdir(parents=True, exist_ok=True)
        atomic_write(run_dir / FAILED, json.dumps(content, indent=2).encode())
        print(f"error: {text}", file=sys.stderr)


def gather(folder: Path) -> tuple[list[Row], list[Failure]]:
    """The models that a multirun has trained whole, and its jobs that failed."""
    rows, failures = [], []
    for path in job_folders(folder):
        if (path / FAILED).is_file():
            content = json.loads((path / FAILED).read_text(encoding="utf-8"))
            failures.append(Failure(int(path.name), tuple(content["overrides"]), content["error"]))
        elif not (path / RECORD).is_file():
            failures.append(Failure(int(path.name), (), f"it left no {RECORD} in {path}"))
        elif (path / METRICS).is_file():  # not where a single stage was trained
            rows.append(row_of(path))
    return rows, failures


def row_of(path: Path) -> Row:
    """The row of a finished job."""
    content = json.loads((path / METRICS).read_text(encoding="utf-8"))
    same = {
        key: content[key]
        for key in (
            "backbone", "classes", "parameters", "scale", "pictures", "psnr", "ssim", "gmacs",
            "gflops_published",
        )
    }  # fmt: skip
    name = f"{content['backbone']}-pcsr-{content['classes']}class"
    return Row(
        job=int(path.name), model=name, share=tuple(content["share"]), folder=str(path), **same
    )


def report(
    rows: Sequence[Row], failures: Sequence[Failure], folder: Path, console: Console
) -> None:
    """Prints the table, and writes it as ``m_sweep.json`` and ``m_sweep.csv``."""
    beside = paper_rows(rows)
    print_table(sweep_table(rows, beside), console)
    content = {
        "jobs": [asdict(row) for row in rows],
        "published": [asdict(point) for point in beside],
        "failed": [asdict(failed) for failed in failures],
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    atomic_write(folder / SWEEP, text.encode())
    atomic_write(folder / SHEET, sheet(rows).encode())
    for name in (SWEEP, SHEET):
        console.print(str(folder / name), soft_wrap=True, highlight=False, markup=False)


def paper_rows(rows: Sequence[Row]) -> list[PublishedPoint]:
    """What Table 4 says of the backbones and scales of these rows (it knows CARN at x4 only)."""
    kinds = dict.fromkeys((row.backbone, row.scale) for row in rows)
    return [
        point
        for backbone, scale in kinds
        for point in published_points(backbone=backbone, scale=None, table="Table 4")
        if point.scale == scale
    ]


def sweep_table(rows: Sequence[Row], published: Sequence[PublishedPoint] = ()) -> Table:
    """A row a model as in Table 4 of PCSR (ECCV 2024), with the paper's own rows below.

    Theirs were measured on other pictures, which each of them names: PSNR and GFLOPs compare
    between the rows of one set of pictures only.
    """
    table = Table(title="all numbers of classes", title_justify="left", box=box.SIMPLE)
    table.add_column("model", no_wrap=True)
    for heading in ("M", "parameters", "pictures", "scale", "PSNR, dB", "SSIM", "GMACs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("GFLOPs (published count)", justify="right", no_wrap=True)
    table.add_column("share, heaviest first", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.model,
            str(row.classes),
            f"{row.parameters:,}",
            f"{row.pictures} of validation",
            f"{row.scale:g}",
            "inf" if row.psnr is None else decibels(row.psnr),
            "-" if row.ssim is None else f"{row.ssim:.4f}",
            f"{row.gmacs:.3f}",
            f"{row.gflops_published:.3f}",
            shares(row.share),
        )
    if published:
        table.add_section()
    for point in published:
        percent = "" if point.percent is None else f" ({point.percent}%)"
        table.add_row(
            f"{point.model} (published, {point.source})",
            _classes(point),
            "-" if point.parameters is None else f"{point.parameters:,}",
            point.dataset,
            str(point.scale),
            "-" if point.psnr is None else decibels(point.psnr),
            "-",
            "-",
            "-" if point.gflops is None else f"{point.gflops:.1f}{percent}",
            "-",
        )
    return table


def _classes(point: PublishedPoint) -> str:
    """``"3"`` of ``CARN-PCSR-3class``."""
    last = point.model.rpartition("-")[2]
    return last.removesuffix("class") if last.endswith("class") else "-"


def sheet(rows: Sequence[Row]) -> str:
    """The rows as CSV; shares are written ``0.61 0.39``, heaviest first."""
    text = io.StringIO()
    columns = list(Row.__dataclass_fields__)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**asdict(row), "share": " ".join(f"{s:.4f}" for s in row.share)})
    return text.getvalue()

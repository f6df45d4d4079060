"""What a multirun's trainings have come to: each, and mean and deviation over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pcsr_lightning.evaluation.jobs import SEED, Settings, job_folders, swept
from pcsr_lightning.evaluation.measurement import decibels
from pcsr_lightning.evaluation.report import METRICS
from pcsr_lightning.evaluation.seeds import Spread, by_seed, paired, spread_columns
from pcsr_lightning.evaluation.tables import (
    UNKNOWN,
    Column,
    DataTable,
    print_path,
    print_table,
)
from pcsr_lightning.weights import RunRecord

PSNR = "validation PSNR, dB"


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: of it.
        settings: all of its settings.
        psnr: of the last validation in dB; ``None`` if there was none.
        steps: optimizer steps done.
    """

    folder: Path
    settings: Settings
    psnr: float | None
    steps: int


def report_runs(folder: Path, console: Console) -> None:
    """Prints the swept settings of a multirun's trainings with their validation PSNR.

    Writes ``table.csv`` and ``table.tex``. Where trainings differ in nothing but the seed, a second
    table has mean and standard deviation over the seeds: ``seeds.csv`` and ``seeds.tex``.
    """
    runs = finished_runs(folder)
    keys = swept([run.settings for run in runs])
    measured = all((run.folder / METRICS).is_file() for run in runs)
    if not keys or (measured and keys == ["num_classes"]):
        return  # stage=all has a table of its own for that
    trainings = runs_table(runs, keys)
    print_table(trainings, console)
    paths = trainings.write(folder)
    groups = by_seed(runs, lambda run: run.settings.but_seed, lambda run: run.settings.seed)
    if len(groups) < len(runs):
        seeds = seeds_table(groups, [key for key in keys if key not in (SEED, "init")])
        print_table(seeds, console)
        paths += seeds.write(folder, "seeds")
    for path in paths:
        print_path(path, console)


def finished_runs(folder: Path) -> list[Run]:
    """The trainings of a multirun that have come to their end, in the order of their numbers."""
    found = []
    for path in job_folders(folder):
        settings, record = Settings.of(path), RunRecord.read(path)
        if settings is not None and record is not None and record.complete:
            found.append(Run(path, settings, record.val_psnr, record.steps))
    return found


def runs_table(runs: Sequence[Run], keys: Sequence[str]) -> DataTable[Run]:
    """A row for each training, with the settings that differ between them."""
    columns = [
        *(_setting(key) for key in keys),
        Column[Run]("steps", lambda run: f"{run.steps:,}", value=lambda run: run.steps),
        Column(PSNR, _psnr, value=lambda run: run.psnr, key="val_psnr"),
        Column("folder", lambda run: str(run.folder), "left"),
    ]
    return DataTable(columns, [runs], "all trainings")


def seeds_table(groups: Sequence[Sequence[Run]], keys: Sequence[str]) -> DataTable[Sequence[Run]]:
    """A row for each setting: mean and standard deviation (n - 1) of PSNR over the seeds."""
    first = groups[0]

    def spread(group: Sequence[Run]) -> Spread | None:
        return Spread.of([run.psnr for run in group])

    def difference(group: Sequence[Run]) -> Spread | None:
        return None if group is first else paired(_by_seed(first), _by_seed(group))

    columns: list[Column[Sequence[Run]]] = [
        *(_of_first(_setting(key)) for key in keys),
        Column("seeds", lambda group: str(len(group)), value=len),
        *spread_columns("val_psnr", PSNR, spread, lambda value: f"{value:.3f}"),
    ]
    if any(map(difference, groups)):
        columns += spread_columns(
            "over_first", "over the first, paired by seed", difference, lambda v: f"{v:+.3f}"
        )
    return DataTable(columns, [groups], "mean +- standard deviation over seeds")


def _setting(key: str) -> Column[Run]:
    return Column(key, lambda run: run.settings.text(key) or UNKNOWN)


def _of_first(column: Column[Run]) -> Column[Sequence[Run]]:
    return Column(column.heading, lambda group: column.cell(group[0]), column.align)


def _psnr(run: Run) -> str:
    return UNKNOWN if run.psnr is None or math.isnan(run.psnr) else decibels(run.psnr)


def _by_seed(group: Sequence[Run]) -> dict[str, float | None]:
    return {run.settings.seed: run.psnr for run in group}

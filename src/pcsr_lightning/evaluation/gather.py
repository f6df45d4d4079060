"""One table and one figure for the jobs of a multirun, when the last of them is done."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from pcsr_lightning.distributed import launched_group
from pcsr_lightning.evaluation.figures import save_figure
from pcsr_lightning.evaluation.loggers import (
    RunLoggers,
    group_name,
    log_overview,
    overview_rows,
)
from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.plots import psnr_flops
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.evaluation.report import FIGURE, METRICS
from pcsr_lightning.evaluation.tables import (
    Column,
    number,
    print_path,
    print_table,
    scale_text,
    terminal_table,
)

log = logging.getLogger(__name__)

FinishedJob = tuple[Measurement, list[PublishedPoint]]
"""The mean over a job's pictures, and the paper's numbers for them, if they were asked for."""


class GatherEvaluations(Callback):
    """Set under ``hydra.callbacks`` in ``conf/evaluate.yaml``."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints a row for each job that ended well, and draws a curve for each model."""
        if launched_group().rank > 0:
            return  # of torchrun's processes the first does it
        folder = Path(config.hydra.sweep.dir)
        jobs = finished_jobs(folder)
        if not jobs:
            log.warning("no job of this sweep has left a %s: nothing to compare", METRICS)
            return
        console = Console()
        measured = [mean for mean, _ in jobs]
        print_table(jobs_table(measured), console)
        figures = draw_jobs(jobs, folder)
        for path in figures:
            print_path(path, console)
        loggers = loggers_of_jobs(folder)
        if loggers is not None:
            with loggers.run(f"{folder.name}, all", "overview") as logger:
                published = [point for _, points in jobs for point in points]
                log_overview(logger, overview_rows(measured, published), figures)


def loggers_of_jobs(folder: Path) -> RunLoggers | None:
    """How the jobs of a multirun were logged by W&B; ``None`` where they were not.

    A multirun's own config says nothing of it: what all jobs are given is part of each job's.
    """
    for path in sorted(folder.glob("*/.hydra/config.yaml")):
        cfg = OmegaConf.load(path)
        if str(OmegaConf.select(cfg, "logger._target_")).endswith("WandbLogger"):
            OmegaConf.update(cfg, "logger.save_dir", str(folder.resolve()))  # until now a job's own
            logger = OmegaConf.to_container(cfg.logger, resolve=True)
            assert isinstance(logger, dict)
            named = {str(key): value for key, value in logger.items() if key != "name"}
            return RunLoggers(named, {}, group_name(folder))
    return None


def job_folders(folder: Path) -> list[Path]:
    """The folders of a multirun's jobs, in the order of their numbers."""
    found = [p for p in folder.iterdir() if p.name.isdecimal()] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def finished_jobs(folder: Path) -> list[FinishedJob]:
    """What a multirun's jobs measured, in the order of their numbers."""
    found: list[FinishedJob] = []
    for job in job_folders(folder):
        try:
            content = json.loads((job / METRICS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # this job failed, and has said so
        published = [PublishedPoint(**point) for point in content["published"]]
        found.append((Measurement.from_json(content), published))
    return found


def jobs_table(measured: Sequence[Measurement]) -> Table:
    """A row a job: what was measured, how pixels were routed, quality and cost."""
    columns = [
        Column("model", lambda row: Path(row.model).name, "left"),
        Column("pictures", lambda row: row.dataset, "left"),
        Column("scale", lambda row: scale_text(row.scale), "left"),
        Column("routing", lambda row: row.routing_name, "left"),
        number("psnr"),
        Column("bicubic, dB", lambda row: number("psnr").cell(row.bicubic_row())),
        *map(number, ("ssim", "gmacs", "gflops_published", "share")),
    ]
    return terminal_table(columns, [measured], title="all jobs")


def draw_jobs(jobs: Sequence[FinishedJob], folder: Path) -> list[Path]:
    """PSNR against GFLOPs for every model, data set and scale with two jobs or more.

    Returns:
        The files: ``psnr_flops.png``, or one with a number for each if there are several.
    """
    groups: dict[tuple[str, str, str], list[FinishedJob]] = {}
    for mean, published in jobs:
        if math.isfinite(mean.psnr):
            key = (mean.model, mean.data_root, scale_text(mean.scale))
            groups.setdefault(key, []).append((mean, published))
    curves = {key: found for key, found in groups.items() if len(found) > 1}
    paths = []
    for n, ((model, root, scale), found) in enumerate(curves.items()):
        title = f"{Path(root).name}, x{scale}"
        points, theirs = [mean for mean, _ in found], found[0][1]
        paths.append(folder / (FIGURE if len(curves) == 1 else f"psnr_flops_{n}.png"))
        save_figure(psnr_flops(points, theirs, Path(model).name, title), paths[-1])
    return paths

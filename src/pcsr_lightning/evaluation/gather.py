"""One table and one figure for the jobs of a multirun, when the last of them is done."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table

from pcsr_lightning.distributed import launched_group
from pcsr_lightning.evaluation.figures import save_figure
from pcsr_lightning.evaluation.plots import OurPoint, psnr_flops
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.evaluation.report import METRICS, decibels, print_table, routing_words, shares
from pcsr_lightning.evaluation.wandb_report import WandbRuns, group_name, job_rows, log_overview
from pcsr_lightning.inference import Routing

log = logging.getLogger(__name__)


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
        print_table(jobs_table(jobs), console)
        figures = draw_jobs(jobs, folder)
        for path in figures:
            console.print(str(path), soft_wrap=True, highlight=False, markup=False)
        runs = runs_of_jobs(folder)
        if runs is not None:
            with runs.run(f"{folder.name}, all", "overview") as run:
                log_overview(run, job_rows(jobs), figures)


def runs_of_jobs(folder: Path) -> WandbRuns | None:
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
            return WandbRuns(named, {}, group_name(folder))
    return None


def job_folders(folder: Path) -> list[Path]:
    """The folders of a multirun's jobs, in the order of their numbers."""
    found = [p for p in folder.iterdir() if p.name.isdecimal()] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def finished_jobs(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a multirun's jobs, in the order of their numbers."""
    found = []
    for job in job_folders(folder):
        try:
            content = json.loads((job / METRICS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # this job failed, and has said so
        found.append(content)
    return found


def jobs_table(jobs: Iterable[dict[str, Any]]) -> Table:
    """A row a job: what was measured, how pixels were routed, quality and cost."""
    table = Table(title="all jobs", title_justify="left", box=box.SIMPLE)
    for heading in ("model", "pictures", "scale", "routing"):
        table.add_column(heading, no_wrap=True)
    headings = ("PSNR, dB", "bicubic, dB", "SSIM", "GMACs", "GFLOPs (published count)", "share")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for job in jobs:
        table.add_row(
            Path(job["model"]).name,
            Path(job["data_root"]).name,
            _scale(job["scale"]),
            job_words(job),
            _decibels(job["psnr"]),
            _decibels(job["bicubic"]["psnr"]),
            "-" if job["ssim"] is None else f"{job['ssim']:.4f}",
            f"{job['gmacs']:.3f}",
            f"{job['gflops_published']:.3f}",
            shares(job["share"]),
        )
    return table


def draw_jobs(jobs: list[dict[str, Any]], folder: Path) -> list[Path]:
    """PSNR against GFLOPs for every model, data set and scale with two jobs or more.

    Returns:
        The files: ``psnr_flops.png``, or one with a number for each if there are several.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for job in jobs:
        key = (job["model"], job["data_root"], _scale(job["scale"]))
        if job["psnr"] is not None:
            groups.setdefault(key, []).append(job)
    curves = {key: found for key, found in groups.items() if len(found) > 1}
    paths = []
    for n, ((model, root, scale), found) in enumerate(curves.items()):
        points = [OurPoint(j["gflops_published"], j["psnr"], job_words(j)) for j in found]
        theirs = [PublishedPoint(**point) for point in found[0]["published"]]
        title = f"{Path(root).name}, x{scale}"
        paths.append(folder / ("psnr_flops.png" if len(curves) == 1 else f"psnr_flops_{n}.png"))
        save_figure(psnr_flops(points, theirs, Path(model).name, title), paths[-1])
    return paths


def job_words(job: dict[str, Any]) -> str:
    """A job's routing in a few words."""
    return "original" if job["routing"] is None else routing_words(Routing(**job["routing"]))


def _scale(scale: float | list[float]) -> str:
    return " x ".join(f"{s:g}" for s in scale) if isinstance(scale, list) else f"{scale:g}"


def _decibels(psnr: float | None) -> str:
    return decibels(math.inf if psnr is None else psnr)

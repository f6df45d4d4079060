"""One table and one figure for the jobs of a multirun, when the last of them is done."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from pcsr_lightning.distributed import launched_group
from pcsr_lightning.evaluation.comparison import finished_jobs
from pcsr_lightning.evaluation.jobs import job_folders, load_config
from pcsr_lightning.evaluation.log_results import log_overview, overview_rows
from pcsr_lightning.evaluation.loggers import RunLoggers, group_name, is_wandb
from pcsr_lightning.evaluation.overview import report_jobs
from pcsr_lightning.evaluation.report import METRICS, SWEEP

log = logging.getLogger(__name__)


class GatherEvaluations(Callback):
    """Set under ``hydra.callbacks`` in ``conf/evaluate.yaml``."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Sets the jobs that ended well side by side."""
        if launched_group().rank > 0:
            return  # of torchrun's processes the first does it
        folder = Path(config.hydra.sweep.dir)
        # A multirun's own config says nothing of what all jobs are given: it is part of each job's.
        configs = [load_config(path) for path in job_folders(folder)]
        gather(folder, [cfg for cfg in configs if cfg is not None], Console())


def gather(folder: Path, configs: Sequence[DictConfig], console: Console) -> None:
    """Prints, writes and logs what jobs have measured, side by side.

    Args:
        folder: has a folder for each job inside; gets the tables and figures.
        configs: of the jobs.
        console: where the tables go.
    """
    jobs = finished_jobs(folder)
    if not jobs:
        log.warning("no job here has left a %s or %s: nothing to compare", METRICS, SWEEP)
        return
    reference = next((cfg.get("reference") for cfg in configs), None)
    figures = report_jobs(jobs, folder, console, reference)
    loggers = loggers_of_jobs(configs, folder)
    if loggers is not None:
        with loggers.run(f"{folder.name}, all", "overview") as overview:
            measured = [point for job in jobs for point in job.points]
            published = [point for job in jobs for point in job.published]
            log_overview(overview, overview_rows(measured, published), figures)


def loggers_of_jobs(configs: Sequence[DictConfig], folder: Path) -> RunLoggers | None:
    """How the jobs of a multirun were logged by W&B; ``None`` where they were not."""
    for cfg in configs:
        for name, node in (cfg.get("logger") or {}).items():
            if node and is_wandb(node):
                own = node.copy()
                own.save_dir = str(folder.resolve())  # until now a job's own
                own.name = None
                settings = OmegaConf.to_container(own, resolve=True)
                return RunLoggers({str(name): settings}, {}, group_name(folder))
    return None

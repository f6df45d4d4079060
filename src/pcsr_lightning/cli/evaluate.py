"""The evaluating door: ``python -m pcsr_lightning.evaluate model=NAME_OR_FILE data.root=DIR``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from pcsr_lightning.cli.evaluate_report import Ready, evaluate_one, evaluate_sweep, model_name
from pcsr_lightning.cli.hydra_command import run_hydra_command
from pcsr_lightning.cli.run_folder import as_one_run
from pcsr_lightning.distributed import ProcessGroup, connected_group, launched_group
from pcsr_lightning.errors import ConfigError, PCSRError, exit_on_error
from pcsr_lightning.evaluation.benchmark import check_fits
from pcsr_lightning.evaluation.config import EvaluateSettings
from pcsr_lightning.evaluation.job import Job, load_model
from pcsr_lightning.evaluation.pairs import Protocol, scale_pair
from pcsr_lightning.evaluation.published import PublishedPoint, published_points
from pcsr_lightning.evaluation.target import check_target
from pcsr_lightning.evaluation.wandb_report import WandbRuns, group_name
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.training.settings import typed
from pcsr_lightning.weights import DEFAULT_MODEL

EXAMPLE = f"python -m pcsr_lightning.evaluate model={DEFAULT_MODEL} data.root=path/to/Set14 scale=4"


def evaluate(
    cfg: DictConfig, run_dir: Path, console: Console | None = None, group: str | None = None
) -> dict[str, Any]:
    """Measures a model on a folder of pictures.

    Args:
        cfg: composed from ``conf/evaluate.yaml``.
        run_dir: where ``metrics.json``, and with ``save_images`` the folder ``pictures``, go.
        console: where the table goes; stdout if not given.
        group: of the W&B runs that are to be compared with this one.

    Returns:
        What ``metrics.json`` holds, see :func:`pcsr_lightning.evaluation.metrics`; among the facts
        ``k`` (null where the routing has none) and ``target_psnr`` (null where none was asked for).
        With ``sweep=k`` what ``sweep.json`` holds. Of processes that torchrun or srun started all
        return it, and the first prints and writes.

    Raises:
        PCSRError: a setting, the model or the pictures cannot be used.
    """
    processes = connected_group()
    run_dir = processes.broadcast(run_dir)
    ready = processes.run_collectively(lambda: prepare(cfg, run_dir, processes))
    settings = ready.settings
    runs = None
    if settings.wandb and ready.first:
        tags = [ready.model.backbone.name, ready.job.folder.resolve().name, f"x{settings.scale}"]
        group = group or (None if settings.sweep is None else group_name(run_dir))
        runs = WandbRuns(settings.logger, as_plain(cfg), group, tags)
    console = (console or Console()) if ready.first else Console(quiet=True)
    if settings.sweep is not None:
        return evaluate_sweep(ready, runs, console)
    return evaluate_one(ready, runs, console)


def prepare(cfg: DictConfig, run_dir: Path, processes: ProcessGroup) -> Ready:
    """Checks what can be checked before a picture is read.

    Raises:
        PCSRError: the first thing that is wrong.
    """
    if OmegaConf.is_missing(cfg.data, "root") or cfg.data.get("root") is None:
        raise ConfigError(f"data.root is missing: name a folder of pictures, such as {EXAMPLE}")
    settings = typed(cfg, EvaluateSettings)
    settings.check(processes)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    elif processes.size > 1:
        torch.set_num_threads(processes.threads())
    scale, protocol = scale_pair(settings.scale), Protocol(settings.protocol)
    routing = settings.chosen_routing()
    routing = replace(routing, refine=routing.refines(scale))
    devices = settings.chosen_devices(processes)
    here = devices[0] if len(devices) == 1 else torch.device("cpu")
    model = load_model(settings.model, settings.backbones, here)
    check_fits(model, scale, routing, protocol)
    check_target(model, routing, settings.target_psnr)
    folder = Path(settings.data.root).expanduser()
    beside = paper_rows(folder, model, scale) if settings.published else []
    job = Job(
        folder,
        scale,
        protocol,
        settings.patch_size,
        routing,
        settings.lpips,
        pictures=run_dir / "pictures" if settings.save_images else None,
    )
    if settings.sweep is not None:
        if isinstance(model, Original) or model.num_classes == 1:
            raise ConfigError("sweep=k: this model has one class only, no k changes anything")
        job = replace(job, sweep=tuple(replace(routing, k=k) for k in settings.sweep_values))
    return Ready(settings, job, model, devices, processes, beside, run_dir)


def paper_rows(
    folder: Path, model: PCSR | Original, scale: tuple[float, float]
) -> list[PublishedPoint]:
    """What the paper's tables say of a data set, known by its folder's name, and a backbone.

    Raises:
        ConfigError: they say nothing of them at this scale.
    """
    found = [
        point
        for point in published_points(folder.resolve().name, model.backbone.name, scale=None)
        if scale == (point.scale, point.scale)
    ]
    if not found:
        sets = sorted({point.dataset for point in published_points(scale=None)})
        raise ConfigError(
            f"published=true: the paper has no row for a data set called {folder.resolve().name} "
            f"with {model.backbone.name} at this scale; it knows {', '.join(sets)}"
        )
    return found


def as_plain(cfg: DictConfig) -> dict[str, Any]:
    """A config as plain values, with nothing left to be looked up."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def run(cfg: DictConfig) -> None:
    """One job of the command line."""
    hydra_cfg = HydraConfig.get()
    several = hydra_cfg.mode == RunMode.MULTIRUN
    group = group_name(Path(hydra_cfg.sweep.dir)) if several else None
    try:
        evaluate(cfg, Path(hydra_cfg.runtime.output_dir), group=group)
    except PCSRError:
        if launched_group().rank > 0:  # the first process says it, for all of them
            raise SystemExit(1) from None
        raise


def main() -> None:
    """Entry point of ``python -m pcsr_lightning.evaluate``."""
    OmegaConf.register_new_resolver("model_name", model_name, replace=True)
    with exit_on_error():
        sys.argv[1:] = as_one_run(sys.argv[1:])
    run_hydra_command(run, "evaluate", EvaluateSettings)

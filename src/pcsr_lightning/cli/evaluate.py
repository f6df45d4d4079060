"""The command ``python -m pcsr_lightning.evaluate model=NAME_OR_FILE data.root=DIR``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console

from pcsr_lightning.cli.hydra_command import run_hydra_command
from pcsr_lightning.cli.routing_group import register_routing
from pcsr_lightning.cli.run_folder import as_one_run
from pcsr_lightning.distributed import launched_group
from pcsr_lightning.errors import (
    ConfigError,
    PCSRError,
    exit_on_error,
    system_errors_in_one_line,
)
from pcsr_lightning.evaluation.config import EvaluationConfig
from pcsr_lightning.evaluation.loggers import group_name
from pcsr_lightning.evaluation.measurement import Measurement, known_numbers
from pcsr_lightning.evaluation.prepared import model_name
from pcsr_lightning.evaluation.run import run_evaluation
from pcsr_lightning.evaluation.search import (
    Objectives,
    Returned,
    directions,
    failure_kept,
    returned,
)
from pcsr_lightning.evaluation.several import evaluate_several, split
from pcsr_lightning.weights import DEFAULT_MODEL

EXAMPLE = f"python -m pcsr_lightning.evaluate model={DEFAULT_MODEL} data.root=path/to/Set14 scale=4"


def evaluate(
    cfg: DictConfig, run_dir: Path, console: Console | None = None, log_group: str | None = None
) -> dict[str, Any]:
    """Measures a model on a folder of pictures; or several models, or folders, one by one.

    Args:
        cfg: composed from ``conf/evaluate.yaml``.
        run_dir: where results go.
        console: where the table goes; stdout if not given.
        log_group: of the W&B runs that are to be compared with this one.

    Returns:
        See :func:`~pcsr_lightning.evaluation.run.run_evaluation`, or of several
        :func:`~pcsr_lightning.evaluation.several.evaluate_several`.

    Raises:
        PCSRError: a setting, the model or the pictures cannot be used.
    """
    if OmegaConf.is_missing(cfg.data, "root") or cfg.data.get("root") is None:
        raise ConfigError(f"data.root is missing: name a folder of pictures, such as {EXAMPLE}")
    parts = split(cfg)
    if len(parts) > 1:
        return evaluate_several(cfg, parts, run_dir, console, log_group)
    return run_evaluation(EvaluationConfig.of(parts[0]), run_dir, console, log_group)


def run(cfg: DictConfig) -> Returned:
    """One job of the command line; a sweeper gets what ``objective`` names."""
    hydra_cfg = HydraConfig.get()
    several = hydra_cfg.mode == RunMode.MULTIRUN
    run_dir = Path(hydra_cfg.runtime.output_dir)
    log_group = group_name(Path(hydra_cfg.sweep.dir)) if several else None
    objectives = Objectives.of(cfg.get("objective"))
    objectives.check(known_numbers(metrics=map(str, cfg.get("metrics") or {})))
    optimised = several and directions(hydra_cfg.sweeper) is not None
    if optimised:
        objectives.check_directions(hydra_cfg.sweeper)
    try:
        with failure_kept(run_dir, abrupt=not optimised) as failures:
            with system_errors_in_one_line(run_dir):
                content = evaluate(cfg, run_dir, log_group=log_group)
            if cfg.sweep is not None or "jobs" in content:  # many numbers and not one
                return None
            return returned(objectives, Measurement.from_json(content).flat(), run_dir)
        return f"failed: {failures[0]}"
    except PCSRError:
        if launched_group().rank > 0:  # the first process says it, for all of them
            raise SystemExit(1) from None
        raise


def folder_name(model: object) -> str:
    """Of the folder that runs of a model have in common, or of several."""
    if isinstance(model, ListConfig):
        return model_name("+".join(map(model_name, model))) if len(model) < 5 else "several"
    return model_name(str(model))


def main() -> None:
    """Entry point of ``python -m pcsr_lightning.evaluate``."""
    OmegaConf.register_new_resolver("model_name", folder_name, replace=True)
    register_routing()
    with exit_on_error():
        sys.argv[1:] = as_one_run(sys.argv[1:])
    run_hydra_command(run, "evaluate")

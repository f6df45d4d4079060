"""Several models, or several sets of pictures, in one evaluation: one after the other."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console

from pcsr_lightning.distributed import launched_group
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.config import EvaluationConfig
from pcsr_lightning.evaluation.gather import gather
from pcsr_lightning.evaluation.loggers import group_name
from pcsr_lightning.evaluation.run import run_evaluation
from pcsr_lightning.weights import find_model
from pcsr_lightning.weights.hub import is_repo_id


def split(cfg: DictConfig) -> list[DictConfig]:
    """A config for each set of pictures and each model, in this order.

    ``model`` is one or a list; ``data.root`` is a folder, a list of folders, or a mapping from the
    names of sets to their folders.

    Raises:
        ConfigError: an empty list or mapping.
    """
    models = list(cfg.model) if isinstance(cfg.model, ListConfig) else [cfg.model]
    root, name = cfg.data.root, cfg.data.get("name")
    sets = [(name, root)]
    if isinstance(root, DictConfig):
        sets = [(str(key), folder) for key, folder in root.items()]
    elif isinstance(root, ListConfig):
        sets = [(None, folder) for folder in root]
    for key, found in (("model", models), ("data.root", sets)):
        if not found:
            raise ConfigError(f"{key} is empty: give one at least")
    parts = []
    for (set_name, folder), model in product(sets, models):
        part = cfg.copy()
        OmegaConf.update(part, "model", model)
        OmegaConf.update(part, "data", {"root": folder, "name": set_name}, merge=False)
        parts.append(part)
    return parts


def evaluate_several(
    cfg: DictConfig,
    parts: list[DictConfig],
    run_dir: Path,
    console: Console | None = None,
    log_group: str | None = None,
) -> dict[str, Any]:
    """Runs evaluations into numbered folders and sets them side by side, as a multirun does.

    Args:
        cfg: the whole config.
        parts: see :func:`split`.
        run_dir: gets the folders, and the tables and figures over all.
        console: where tables go; stdout if not given.
        log_group: of the W&B runs that are to be compared with these.

    Returns:
        Under ``jobs`` what each evaluation returns.

    Raises:
        PCSRError: a setting, a model or the pictures cannot be used; settings and the names of
            models are checked before anything is measured.
    """
    configs = [EvaluationConfig.of(part) for part in parts]
    for config in configs:
        config.check()
        if not is_repo_id(config.model):
            find_model(config.model)
    models = list(dict.fromkeys(config.model for config in configs))
    if cfg.reference is not None and cfg.reference not in models:
        raise ConfigError(f"reference={cfg.reference}: must be one of {', '.join(models)}")
    console, jobs = console or Console(), []
    for number, config in enumerate(configs):
        folder = run_dir / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        jobs.append(run_evaluation(config, folder, console, log_group or group_name(run_dir)))
    if launched_group().rank == 0:
        gather(run_dir, [cfg], console)
    return {"jobs": jobs}

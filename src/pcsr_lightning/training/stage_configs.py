"""The config of each stage of a ``stage=all`` job, composed anew from the job's own words."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, read_write

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.training.instantiation import in_plain_values
from pcsr_lightning.training.known_keys import in_one_line

DECIDING = ("backbone", "stage", "optimizer", "scheduler", "loss", "data", "trainer")
"""Groups that say what comes out of a training."""
FREE = {
    "data": {"num_workers", "cache_dir", "download", "url", "val_limit", "val_scale"},
    "trainer": {
        "accelerator", "devices", "num_nodes", "strategy", "enable_progress_bar",
        "val_check_interval", "limit_val_batches", "log_every_n_steps", "num_sanity_val_steps",
    },
}  # fmt: skip
"""What may be another when a run goes on: it decides where and how fast, or what is watched."""


def compose_stage(number: int) -> DictConfig:
    """The config that the job's command line would have had with ``stage=number``.

    Raises:
        ConfigError: Hydra cannot compose it; there is no such stage, say.
    """
    job = HydraConfig.get()
    words = stage_words([*job.overrides.task, *job.overrides.hydra], number)
    try:
        return compose(job.job.config_name, words)
    except HydraException as error:
        raise ConfigError(
            f"stage {number} of stage=all: {in_one_line(error, 'train', words)}"
        ) from None


def stage_words(words: Sequence[str], number: int) -> list[str]:
    """A job's overrides with the choice of the stage replaced.

    ``stage.KEY=VALUE`` goes to stages that do not know the key too: the weights of the losses mean
    nothing to stage 1, which has one loss.
    """
    kept = []
    for override in OverridesParser.create().parse_overrides(list(words)):
        key, word = override.key_or_group, str(override.input_line)
        if key in ("stage", "hydra.mode"):
            continue
        own = key.startswith("stage.") and override.type == OverrideType.CHANGE
        kept.append(f"++{word}" if own else word)
    return [*kept, f'stage="{number}"']


@contextmanager
def stage_folder(folder: Path) -> Iterator[None]:
    """Makes ``folder`` the output folder of Hydra's job, with a log file like the job's own."""
    folder.mkdir(parents=True, exist_ok=True)
    before = HydraConfig.get().runtime.output_dir
    root = logging.getLogger()
    handlers = [like(h, folder) for h in root.handlers if isinstance(h, logging.FileHandler)]
    _set_output_dir(str(folder))
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        _set_output_dir(before)


def _set_output_dir(folder: str) -> None:
    node = OmegaConf.select(cast(DictConfig, HydraConfig.get()), "runtime")
    with read_write(node):
        node.output_dir = folder


def like(handler: logging.FileHandler, folder: Path) -> logging.FileHandler:
    """A handler for a file of the same name in another folder."""
    other = logging.FileHandler(folder / Path(handler.baseFilename).name)
    other.setFormatter(handler.formatter)
    other.setLevel(handler.level)
    return other


def keep_config(cfg: DictConfig, folder: Path) -> None:
    """Writes a stage's config where Hydra keeps that of a run, within :func:`stage_folder`."""
    job = HydraConfig.get()
    if job.output_subdir is None:  # a process that Lightning started beside the first
        return
    inside = folder / job.output_subdir
    inside.mkdir(parents=True, exist_ok=True)
    number = int(cfg.stage.name)
    words = OmegaConf.create(stage_words(job.overrides.task, number))
    hydra_node = OmegaConf.create({"hydra": job})
    for name, node in (("config", cfg), ("overrides", words), ("hydra", hydra_node)):
        atomic_write(inside / f"{name}.yaml", OmegaConf.to_yaml(node).encode())


def check_same(cfg: DictConfig, folder: Path) -> None:
    """Refuses to go on with a stage that other settings have begun.

    Raises:
        ConfigError: names the first setting that differs, and both values.
    """
    path = folder / (HydraConfig.get().output_subdir or ".hydra") / "config.yaml"
    if not path.is_file():
        return
    before, now = deciding(OmegaConf.load(path)), deciding(cfg)
    for key, value in now.items():
        if before.get(key, value) != value:  # another release may have had other keys
            raise ConfigError(
                f"{folder} was begun with {key}={before[key]}, and this command says "
                f"{key}={value}: give another hydra.run.dir (or hydra.sweep.dir), or remove "
                "that folder and those of the stages after it to train them anew"
            )


def deciding(cfg: Any) -> dict[str, Any]:
    """The settings that decide what comes out, by their names."""
    found = {key: cfg[key] for key in ("num_classes", "seed")}
    if cfg.stage.name == "1":  # later ones have the folder of the stage before, however written
        found["init"] = cfg.init
    for group in DECIDING:
        values = in_plain_values(cfg.get(group, {}), group)
        free = FREE.get(group, set())
        found.update({f"{group}.{key!s}": v for key, v in values.items() if key not in free})
    return found

"""The config of each stage of a ``stage=all`` job, composed from the job's overrides."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from pcsr_lightning import conf_dir
from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.settings.hydra_job import output_dir
from pcsr_lightning.settings.instantiation import in_plain_values
from pcsr_lightning.settings.known_keys import group_keys, in_one_line
from pcsr_lightning.settings.overrides import renamed, with_plus
from pcsr_lightning.settings.signatures import check_integer, check_type, parameters
from pcsr_lightning.training.initialization import stage_number

DECIDING = ("backbone", "stage", "optimizer", "scheduler", "loss", "data", "trainer")
"""Groups that say what comes out of a training."""
FREE = {
    "stage": {"captured"},
    "data": {
        "num_workers", "cache_dir", "download", "url", "val_limit", "val_scale", "on_device",
    },
    "trainer": {
        "accelerator", "devices", "num_nodes", "strategy", "enable_progress_bar",
        "val_check_interval", "check_val_every_n_epoch", "limit_val_batches", "log_every_n_steps",
        "num_sanity_val_steps", "profiler", "detect_anomaly",
    },
}  # fmt: skip
"""What may differ when a run resumes: where and how fast it trains, or what is watched."""


@dataclass(frozen=True)
class StagePlan:
    """One stage of a ``stage=all`` job.

    Attributes:
        label: the stage's name; ``1-part-2`` where it is trained a second time.
        overrides: that compose its config.
        cfg: the config.
        folder: its run folder.
    """

    label: str
    overrides: tuple[str, ...]
    cfg: DictConfig
    folder: Path


def plan_stages(cfg: DictConfig, run_dir: Path) -> list[StagePlan]:
    """The stages of a job in order, each to start from the one before.

    Args:
        cfg: composed with ``stage=all``; ``stages`` lists the stages, or is null for 1 to
            ``num_classes``.
        run_dir: of the job; each stage gets a folder inside.

    Raises:
        ConfigError: Hydra cannot compose a stage: there is no such stage, say.
    """
    plans: list[StagePlan] = []
    for own in listed_stages(cfg):
        name = stage_name(own)
        part = 1 + sum(plan.cfg.stage.name == name for plan in plans)
        label = name if part == 1 else f"{name}-part-{part}"
        overrides = stage_overrides(job_overrides(), own)
        stage_cfg = compose_stage(name, overrides)
        if plans:
            stage_cfg.init = str(plans[-1].folder)
        plans.append(StagePlan(label, tuple(overrides), stage_cfg, run_dir / f"stage-{label}"))
    return plans


def listed_stages(cfg: DictConfig) -> list[list[str]]:
    """The overrides of each stage, ``stage=NAME`` among them.

    Raises:
        ConfigError: ``stages`` is no list of lists of overrides, or there are too few classes.
    """
    if cfg.stages is None:
        check_integer("num_classes", cfg.num_classes, 1)
        stage_number(str(cfg.num_classes), cfg.num_classes)
        return [[f"stage={number}"] for number in range(1, cfg.num_classes + 1)]
    check_type("stages", OmegaConf.to_container(cfg.stages), list[list[str]])
    if not cfg.stages:
        raise ConfigError("stages is empty: expected the overrides of each stage")
    return [[renamed(str(word)) for word in own] for own in cfg.stages]


def stage_name(own: Sequence[str]) -> str:
    """The stage that a list of overrides names.

    Raises:
        ConfigError: it names none.
    """
    for word in own:
        key, _, value = word.partition("=")
        if key == "stage" and value:
            return value.strip("\"'")
    raise ConfigError(f"stages: a stage without stage=NAME among its overrides: {list(own)}")


def job_overrides() -> list[str]:
    """The overrides of the command line."""
    overrides = HydraConfig.get().overrides
    return [*overrides.task, *overrides.hydra]


def compose_stage(name: str, overrides: Sequence[str]) -> DictConfig:
    """The config that a command line with these overrides would have.

    Raises:
        ConfigError: Hydra cannot compose it.
    """
    try:
        return compose(HydraConfig.get().job.config_name, with_plus(overrides, "train"))
    except HydraException as error:
        reason = in_one_line(error, "train", overrides)
        raise ConfigError(f"stage {name} of stage=all: {reason}") from None


def stage_overrides(overrides: Sequence[str], own: Sequence[str]) -> list[str]:
    """A job's overrides with those of one stage, where the job does not decide already.

    ``stage.KEY=VALUE`` of the job goes to stages that do not know the key too: the weights of the
    losses mean nothing to stage 1, which has one loss.
    """
    kept, given = [], {"stage"}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, word = override.key_or_group, str(override.input_line)
        if key in ("stage", "stages", "hydra.mode"):
            continue
        given.add(key)
        every = key.startswith("stage.") and override.type == OverrideType.CHANGE
        kept.append(f"++{word}" if every else word)
    more = [word for word in own if word.lstrip("+~").partition("=")[0] not in given]
    return [*kept, *more, f'stage="{stage_name(own)}"']


@contextmanager
def stage_folder(folder: Path) -> Iterator[None]:
    """Makes ``folder`` the output folder of Hydra's job, with a log file like the job's own."""
    folder.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    handlers = []
    for job_handler in root.handlers:
        if isinstance(job_handler, logging.FileHandler):
            handler = logging.FileHandler(folder / Path(job_handler.baseFilename).name)
            handler.setFormatter(job_handler.formatter)
            handler.setLevel(job_handler.level)
            handlers.append(handler)
    for handler in handlers:
        root.addHandler(handler)
    try:
        with output_dir(folder):
            yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def keep_config(plan: StagePlan) -> None:
    """Writes a stage's config where Hydra keeps that of a run, within :func:`stage_folder`."""
    job = HydraConfig.get()
    if job.output_subdir is None:  # a process that Lightning started beside the first
        return
    inside = plan.folder / job.output_subdir
    inside.mkdir(parents=True, exist_ok=True)
    overrides = [text for text in plan.overrides if not text.startswith("hydra")]
    nodes = {
        "config": plan.cfg,
        "overrides": OmegaConf.create(overrides),
        "hydra": OmegaConf.create({"hydra": job}),
    }
    for name, node in nodes.items():
        atomic_write(inside / f"{name}.yaml", OmegaConf.to_yaml(node).encode())


def check_same(plan: StagePlan, first: bool) -> None:
    """Refuses to resume a stage that was begun with other settings.

    Args:
        plan: of the stage.
        first: it is the job's first, whose ``init`` counts too; those of later stages are the
            folder of the stage before, however written.

    Raises:
        ConfigError: names the first setting that differs, and both values.
    """
    path = plan.folder / (HydraConfig.get().output_subdir or ".hydra") / "config.yaml"
    if not path.is_file():
        return
    begun = OmegaConf.load(path)
    assert isinstance(begun, DictConfig)
    before, now = deciding(begun), deciding(plan.cfg)
    if first:
        before["init"], now["init"] = begun.init, plan.cfg.init
    # Another release may have had other keys; but what is given to the trainer is all told.
    usual = OmegaConf.load(conf_dir() / "trainer" / "default.yaml")
    for found, other in ((now, before), (before, now)):
        keys = [key for key in other if key.startswith("trainer.") and key not in found]
        found |= {key: OmegaConf.select(usual, key.removeprefix("trainer.")) for key in keys}
    for key, value in now.items():
        if before.get(key, value) != value:
            raise ConfigError(
                f"{plan.folder} was begun with {key}={before[key]}, and this command says "
                f"{key}={value}: give another hydra.run.dir (or hydra.sweep.dir), or remove "
                "that folder and those of the stages after it to train them again"
            )


def deciding(cfg: DictConfig) -> dict[str, Any]:
    """The settings that decide what comes out, by their names.

    Values that belong to another choice of a group decide nothing: ``stage.w_avg`` in stage 1.
    """
    found = {key: cfg[key] for key in ("num_classes", "seed")}
    for group in DECIDING:
        values = in_plain_values(cfg.get(group, {}), group)
        free = FREE.get(group, set()) | taken_by_other_choices(group, values)
        found.update({f"{group}.{key}": v for key, v in values.items() if key not in free})
    return found


def taken_by_other_choices(group: str, values: Mapping[str, Any]) -> set[str]:
    """Keys of a group that its ``_target_`` does not take, though another choice's would."""
    try:
        takes, more = parameters(hydra.utils.get_object(values["_target_"]))
    except (KeyError, ImportError, ValueError, AttributeError, TypeError):
        return set()  # without a target, or one that is not here now: all of it counts
    elsewhere = group_keys(group) - takes.keys()
    return set() if more else {key for key in elsewhere if not key.startswith("_")}

"""Resuming from a checkpoint: what it keeps, and which settings may be others than before."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from torch.optim.lr_scheduler import LambdaLR

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import is_reparameterized
from pcsr_lightning.settings.instantiation import in_plain_values
from pcsr_lightning.training.callbacks.clock import parse_time, time_used
from pcsr_lightning.training.earlier_run import different_sizes
from pcsr_lightning.training.modules import SRStage
from pcsr_lightning.training.optim.factories import asked_lengths, make_schedule
from pcsr_lightning.training.stage_configs import deciding
from pcsr_lightning.weights import read_checkpoint
from pcsr_lightning.weights.plain_pickles import read_plain

_warn = rank_zero_only(logging.getLogger(__name__).warning)

Changes = dict[str, tuple[Any, Any]]
"""Settings by name: what they were, and what they are now."""


def run_facts(cfg: DictConfig, init: dict[str, str] | None = None) -> dict[str, Any]:
    """What a checkpoint, and at the end the run's record, keep of a run that begins.

    Args:
        cfg: of the run.
        init: ``path`` and ``sha256`` of the model that it starts from.

    Returns:
        ``settings`` that decide what comes out; ``init``; ``changed``: one entry for each time
        that the run was resumed with other settings, ``step`` and ``settings``, see
        :data:`Changes`.
    """
    return {"settings": deciding(cfg), "init": init, "changed": []}


def resume(path: Path, cfg: DictConfig, stage: SRStage) -> dict[str, Any]:
    """Checks that a run may go on from a checkpoint, and says what will not be as before.

    Args:
        path: of the checkpoint.
        cfg: of the run that goes on.
        stage: made from it.

    Returns:
        As :func:`run_facts`, with the history of the checkpoint.

    Raises:
        ConfigError: it is of another stage, backbone, number of classes or network; or it is
            beyond the run's end; or a setting of optimizer or scheduler is another than the
            checkpoint's, which would win.
        ModelFileError: it is damaged, or no checkpoint of ours.
    """
    kept, _ = read_checkpoint(path)
    _check_kind(path, kept, stage)
    content, before = read_plain(path), kept.get("run")
    was, now = map(is_reparameterized, (content["state_dict"], stage.state_dict()))
    if was != now:
        raise ConfigError(
            f"ckpt_path={path} was begun with stage.reparameterized={str(was).lower()}: resume it "
            f"with that, or begin a new run from its weights with init={path}"
        )
    step, last = content["global_step"], cfg.trainer.max_steps
    if 0 <= last < step:
        raise ConfigError(
            f"ckpt_path={path} is at step {step}, beyond trainer.max_steps={last}: name more steps"
        )
    found, used = run_facts(cfg), time_used(content)
    if before is None:  # of an earlier version
        changes: Changes = {}
    else:
        changes = changed_settings(before["settings"], found["settings"])
        found |= {"init": before["init"], "changed": before["changed"]}
    by_clock = parse_time(in_plain_values(cfg.trainer, "trainer").get("max_time"))
    duration = None if by_clock is None else by_clock.total_seconds()
    if duration is not None and "trainer.max_time" in changes and duration <= used:
        raise ConfigError(
            f"ckpt_path={path} was trained for {used:.0f} s, beyond "
            f"trainer.max_time={cfg.trainer.max_time}: name more time"
        )
    jump = rate_jump(content, stage, None if duration is None else min(1.0, used / duration))
    _check_effective(path, changes, keeps_schedule=jump is None)
    if changes:
        told = ", ".join(f"{key}={now} (was {was})" for key, (was, now) in changes.items())
        _warn(f"resumed at step {step} with other settings: {told}")
        found["changed"] = [*found["changed"], {"step": step, "settings": changes}]
    # By the clock it goes on falling while a checkpoint is made: no jump.
    expected = duration is not None and "trainer.max_time" not in changes
    if jump is not None and not expected and abs(jump[1] - jump[0]) > 1e-6 * max(jump):
        _warn(
            f"the learning rate jumps from {jump[0]:.3g} to {jump[1]:.3g} at step {step}: the "
            "schedule is not the one that the run was begun with (a longer cosine is higher at "
            "every step; scheduler=trapezoid can be lengthened before it falls)"
        )
    return found


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> Changes:
    """The settings that differ; of those that only one side knows, the trainer's own.

    What interpolates another setting (``scheduler.steps``) and changes with it is left out.
    """
    keys = [key for key in now if key in before]
    keys += [key for key in before.keys() ^ now.keys() if key.startswith("trainer.")]
    found = {
        key: (before.get(key), now.get(key))
        for key in keys
        if before.get(key) != now.get(key) and key != "backbone.lr"
    }
    if found.get("scheduler.steps") == found.get("trainer.max_steps"):
        found.pop("scheduler.steps", None)
    return found


def rate_jump(
    content: dict[str, Any], stage: SRStage, share: float | None = None
) -> tuple[float, float] | None:
    """The highest learning rate at a checkpoint's step: of its own schedule, and of the run's.

    ``None`` where a scheduler takes its whole schedule from the checkpoint.

    Args:
        content: of the checkpoint.
        stage: of the run.
        share: of the run's time that is done; ``None`` where no time limits it.
    """
    made: Any = stage.configure_optimizers()
    if share is not None and stage.scheduler is not None:
        made = {
            "lr_scheduler": make_schedule(stage.scheduler, made["optimizer"], None, lambda: share)
        }
    schedule = made.get("lr_scheduler") if isinstance(made, dict) else None
    scheduler = schedule["scheduler"] if isinstance(schedule, dict) else None
    states = content.get("lr_schedulers") or [{}]
    if not isinstance(scheduler, LambdaLR) or "lr_lambdas" not in states[0]:
        return None
    state = states[0]
    rates = zip(state["base_lrs"], scheduler.lr_lambdas, strict=False)
    now = max(base * factor(state["last_epoch"]) for base, factor in rates)
    if stage.scheduler is not None and asked_lengths(stage.scheduler):
        now = max(state["_last_lr"])  # by epochs: their steps are counted once there is data
    return max(state["_last_lr"]), now


def _check_kind(path: Path, kept: dict[str, Any], stage: SRStage) -> None:
    kinds = [
        ", ".join(f"{key}={found[key]}" for key in ("stage", "backbone", "num_classes"))
        for found in (kept, stage.hparams)
    ]
    if kinds[0] != kinds[1]:
        raise ConfigError(f"ckpt_path={path} is of {kinds[0]}; this run is {kinds[1]}")
    config = json.loads(json.dumps([kept["network"], stage.network.config()]))
    if different := different_sizes(*config):
        raise ConfigError(f"ckpt_path={path} is of another network: {', '.join(different)}")


def _check_effective(path: Path, changes: Changes, keeps_schedule: bool) -> None:
    groups = ("optimizer.", "scheduler.") if keeps_schedule else ("optimizer.",)
    for key, (was, now) in changes.items():
        if key.startswith(groups):
            raise ConfigError(
                f"{key}={now} would have no effect: ckpt_path={path} was begun with {key}={was}, "
                f"which is restored from it. Leave {key}={was}, or begin a new run"
            )

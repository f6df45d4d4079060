"""All stages of a model in one job, which resumes after any interruption."""

from __future__ import annotations

import json
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.distributed import launched_group
from pcsr_lightning.errors import ConfigError, TrainingError
from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.report import METRICS
from pcsr_lightning.settings.hydra_job import job_of
from pcsr_lightning.settings.instantiation import in_plain_values
from pcsr_lightning.training.ending import trial_run
from pcsr_lightning.training.measure import measure_model
from pcsr_lightning.training.settings_check import check_settings
from pcsr_lightning.training.shared_stages import take_over, trained_by_another_job
from pcsr_lightning.training.stage_configs import (
    StagePlan,
    check_same,
    keep_config,
    plan_stages,
    stage_folder,
)
from pcsr_lightning.training.train_stage import train
from pcsr_lightning.weights import LAST, RECORD, RunRecord, is_finished, read_checkpoint

log = logging.getLogger(__name__)

ALL = "all"
"""The word for all stages where a stage is named."""
LOCK_TIMEOUT_S = 10.0
MODEL = ("model.json", "model.safetensors")  # as :func:`weights.save` writes them


def train_all(cfg: DictConfig, run_dir: str | Path) -> dict[str, float]:
    """Trains stages in order, each on the one before, and measures the finished model.

    The stages are 1 to ``num_classes``, or those that ``stages`` lists. Each has the settings of
    its own file in ``conf/stage``, with its overrides and then the job's on top.
    What an earlier call has finished in ``run_dir`` is left as it is, and a stage that has a
    checkpoint resumes from it: the weights come out as without the interruption.

    Args:
        cfg: composed with ``stage=all``, in a running Hydra job, or with
            ``compose(..., return_hydra_config=True)``.
        run_dir: gets a folder ``stage-N`` for each stage, holding what a run of that stage alone
            would; then the finished model (``model.safetensors`` and ``model.json``),
            ``metrics.json``, see :func:`measure_model`, and ``run.json``.

    Returns:
        The finished model's numbers, such as ``val/psnr`` in dB and ``val/gmacs``, on the rank that
        measures it.

    Raises:
        PCSRError: a setting of any stage, the data or ``init`` cannot be used; ``run_dir`` holds
            stages of other settings; or another process trains there.
    """
    if cfg.ckpt_path is not None:
        raise ConfigError(
            f"ckpt_path={cfg.ckpt_path}: with stage=all every stage finds its own last checkpoint. "
            "To resume a run, give its command again with hydra.run.dir=FOLDER; to resume one "
            "stage alone, name it, such as stage=2 ckpt_path=FILE"
        )
    with job_of(cfg, Path(run_dir)):
        return _train_all(cfg, Path(run_dir))


def _train_all(cfg: DictConfig, run_dir: Path) -> dict[str, float]:
    plans = checked_plans(cfg, run_dir)
    trial = trial_run(in_plain_values(plans[0].cfg.trainer, "trainer"))
    with lock(run_dir):
        for plan in plans:
            train_stage_of_all(plan, run_dir)
            record = RunRecord.read(plan.folder)
            if trial is None and (record is None or not record.complete):
                how = "left no record" if record is None else record.ended
                raise TrainingError(
                    f"stage {plan.label}: {how}; no stage is built on it. The same command with "
                    f"hydra.run.dir={run_dir}, and with no such limit, resumes it"
                )
        if trial is not None:
            log.info("%s: nothing in %s counts as finished", trial, run_dir)
            return {}
        return conclude(plans[-1], run_dir) or {}


def train_stage_of_all(plan: StagePlan, run_dir: Path) -> None:
    """Trains one of the stages, if neither an earlier call nor another job of the sweep has."""
    last = plan.folder / LAST
    if is_finished(plan.folder):
        log.info("stage %s is finished: %s", plan.label, plan.folder)
        return
    if last.is_file():
        read_checkpoint(last)  # says so now if it is damaged
        plan.cfg.ckpt_path = str(last)
    elif (run := trained_by_another_job(plan)) is not None:
        take_over(run, plan)
        log.info("stage %s is taken over from %s: %s", plan.label, run.folder, plan.folder)
        return
    begins = "resumes" if last.is_file() else "starts"
    log.info("stage %s %s: %s", plan.label, begins, plan.folder)
    try:
        with stage_folder(plan.folder):
            keep_config(plan)
            train(plan.cfg, plan.folder)
    except (KeyboardInterrupt, SystemExit):
        log.info("stage=all: the same command with hydra.run.dir=%s resumes here", run_dir)
        raise


def checked_plans(cfg: DictConfig, run_dir: Path) -> list[StagePlan]:
    """The job's stages, checked before any training.

    Raises:
        ConfigError: a setting cannot be used, or ``run_dir`` holds stages of other settings.
    """
    plans = plan_stages(cfg, run_dir)
    for plan in plans:
        check_settings(plan.cfg)
        check_same(plan, first=plan is plans[0])
    others = {path.name for path in run_dir.glob("stage-*")} - {plan.folder.name for plan in plans}
    if others:
        raise ConfigError(
            f"{run_dir} was begun with more stages ({', '.join(sorted(others))}): give another "
            "hydra.run.dir"
        )
    return plans


def lock(run_dir: Path) -> AbstractContextManager[object]:
    """Takes a run folder: a second training in it would mix its checkpoints with the first one's.

    The first process of a run takes it for the others, those that Lightning starts included.

    Raises:
        TrainingError: another process trains there.
    """
    if launched_group().rank > 0 or int(os.environ.get("LOCAL_RANK", 0)) > 0:
        return nullcontext()
    run_dir.mkdir(parents=True, exist_ok=True)
    # A killed training's loader processes hold it for a few seconds more.
    taken = FileLock(run_dir / ".lock", timeout=LOCK_TIMEOUT_S)
    try:
        return taken.acquire()
    except Timeout:
        raise TrainingError(
            f"{run_dir}: another process is training here; wait for it, or stop it first"
        ) from None


@rank_zero_only
def conclude(plan: StagePlan, run_dir: Path) -> dict[str, float]:
    """Makes the last stage's model the run's, measures it, and marks the run as finished."""
    if is_finished(run_dir):
        log.info("finished before: %s", run_dir)
        return val_numbers(json.loads((run_dir / METRICS).read_text(encoding="utf-8")))
    for name in MODEL:
        atomic_write(run_dir / name, (plan.folder / name).read_bytes())
    found = measure_model(plan.cfg, run_dir)
    atomic_write(run_dir / RECORD, (plan.folder / RECORD).read_bytes())
    log.info(
        "M = %d: %s dB at k = 0 on %d pictures; %s",
        found["classes"], json.dumps(found["psnr"]), found["pictures"], run_dir / MODEL[1],
    )  # fmt: skip
    return val_numbers(found)


def val_numbers(content: dict[str, Any]) -> dict[str, float]:
    """What ``metrics.json`` holds, by the names that training logs it under."""
    flat = Measurement.from_json(content).flat()
    return {val_name(key): value for key, value in flat.items() if value is not None}


def val_name(name: str) -> str:
    """The name that training logs a number of ``metrics.json`` under: ``val/psnr`` of ``psnr``."""
    return f"val/{name.removeprefix('metrics/').replace('share/', 'share_')}"

"""All stages of a model in one job, which goes on after any interruption."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.report import METRICS
from pcsr_lightning.training.initialization import stage_number
from pcsr_lightning.training.measure import measure_model
from pcsr_lightning.training.signatures import whole_number
from pcsr_lightning.training.stage_configs import (
    check_same,
    compose_stage,
    keep_config,
    stage_folder,
)
from pcsr_lightning.training.train_stage import check_settings, train
from pcsr_lightning.weights import LAST, RECORD, is_finished, read_checkpoint

log = logging.getLogger(__name__)

ALL = "all"
"""The word for all stages where a stage is named."""
MODEL = ("model.json", "model.safetensors")  # as :func:`weights.save` writes them


def train_all(cfg: DictConfig, run_dir: Path) -> dict[str, float]:
    """Trains stages 1 to ``num_classes``, each on the one before, and measures the model.

    Every stage has the settings of its own file in ``conf/stage``, with the job's words on top.
    What an earlier call has finished in ``run_dir`` is left as it is, and a stage that has a
    checkpoint goes on from it: the weights come out as without the interruption.

    Args:
        cfg: composed with ``stage=all``, in a running Hydra job.
        run_dir: gets a folder ``stage-N`` for each stage, holding what a run of that stage alone
            would; then the finished model (``model.safetensors`` and ``model.json``),
            ``metrics.json``, see :func:`measure_model`, and ``run.json``.

    Returns:
        ``val/psnr`` of the finished model in dB, on the rank that measures it.

    Raises:
        PCSRError: a setting of any stage, the data or ``init`` cannot be used; or ``run_dir`` holds
            stages of other settings.
    """
    if cfg.ckpt_path is not None:
        raise ConfigError(
            f"ckpt_path={cfg.ckpt_path}: with stage=all every stage finds its own last checkpoint. "
            "To go on with a run, give its command again with hydra.run.dir=FOLDER; to resume one "
            "stage alone, name it, such as stage=2 ckpt_path=FILE"
        )
    stages = checked_stages(run_dir)
    for number, stage_cfg in enumerate(stages, start=1):
        folder = run_dir / f"stage-{number}"
        if is_finished(folder):
            log.info("stage %d of %d is finished: %s", number, len(stages), folder)
            continue
        last = folder / LAST
        if last.is_file():
            read_checkpoint(last)  # says so now if it is damaged
            stage_cfg.ckpt_path = str(last)
        log.info(
            "stage %d of %d %s: %s", number, len(stages),
            "goes on" if last.is_file() else "starts", folder,
        )  # fmt: skip
        try:
            with stage_folder(folder):
                keep_config(stage_cfg, folder)
                train(stage_cfg, folder)
        except (KeyboardInterrupt, SystemExit):
            log.info("stage=all: its command goes on from here with hydra.run.dir=%s", run_dir)
            raise
    return conclude(stages[-1], run_dir) or {}


def checked_stages(run_dir: Path) -> list[DictConfig]:
    """The configs of all stages, each to start from the one before, checked before any training.

    Raises:
        ConfigError: a setting cannot be used, or ``run_dir`` holds stages of other settings.
    """
    stages = [compose_stage(1)]
    classes = stages[0].num_classes
    whole_number("num_classes", classes, 1)
    stage_number(str(classes), classes)
    stages += [compose_stage(number) for number in range(2, classes + 1)]
    for number, cfg in enumerate(stages, start=1):
        if number > 1:
            cfg.init = str(run_dir / f"stage-{number - 1}")
        check_settings(cfg)
        check_same(cfg, run_dir / f"stage-{number}")
    if (run_dir / f"stage-{classes + 1}").exists():
        raise ConfigError(
            f"{run_dir} was begun with more than num_classes={classes}: give another hydra.run.dir"
        )
    return stages


@rank_zero_only
def conclude(cfg: DictConfig, run_dir: Path) -> dict[str, float]:
    """Makes the last stage's model the run's, measures it, and marks the run as finished."""
    last = run_dir / f"stage-{cfg.stage.name}"
    if is_finished(run_dir):
        log.info("finished before: %s", run_dir)
        return val_psnr(json.loads((run_dir / METRICS).read_text(encoding="utf-8")))
    for name in MODEL:
        atomic_write(run_dir / name, (last / name).read_bytes())
    found = measure_model(cfg, run_dir)
    atomic_write(run_dir / RECORD, (last / RECORD).read_bytes())
    log.info(
        "M = %d: %s dB at k = 0 on %d pictures; %s",
        found["classes"], json.dumps(found["psnr"]), found["pictures"], run_dir / MODEL[1],
    )  # fmt: skip
    return val_psnr(found)


def val_psnr(content: dict[str, Any]) -> dict[str, float]:
    """The PSNR of what ``metrics.json`` holds, by the name that training logs it under."""
    return {} if content["psnr"] is None else {"val/psnr": content["psnr"]}

"""A stage that another job of the same sweep has trained already is not trained again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.distributed import launched_group
from pcsr_lightning.training.earlier_run import CONFIG, Run, need
from pcsr_lightning.training.initialization import network_of
from pcsr_lightning.training.stage_configs import StagePlan, deciding, keep_config, stage_folder
from pcsr_lightning.weights import file_hash, find_model, is_finished, runs_below


def trained_by_another_job(plan: StagePlan) -> Run | None:
    """The run of a stage, in another job of this multirun, that trained exactly the same.

    Network, pictures, seed, model to start from and all deciding settings are the same;
    ``num_classes`` may be another, if the network does not depend on it. Processes that were
    started together train for themselves.
    """
    job = HydraConfig.get()
    if job.mode != RunMode.MULTIRUN or launched_group().size > 1:
        return None
    wanted = need(plan.cfg, network_of(plan.cfg), plan.cfg.stage.name)
    settings = _compared(deciding(plan.cfg))
    init = None if plan.cfg.init is None else file_hash(find_model(plan.cfg.init))
    for folder, record in runs_below(Path(job.sweep.dir)):
        same = (
            folder.name.startswith("stage-")
            and record.stage == plan.cfg.stage.name
            and _compared(record.settings) == settings
            and (record.init or {}).get("sha256") == init
            and not record.changed
        )
        if same and is_finished(folder) and not wanted.differences(run := Run(folder, record)):
            return run
    return None


def take_over(run: Run, plan: StagePlan) -> None:
    """Makes a stage's folder a copy of another job's, under this job's config."""
    part = plan.folder.with_name(f".{plan.folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(run.folder, part, ignore=shutil.ignore_patterns(".hydra", ".*.tmp"))
    num_classes = plan.cfg.num_classes
    model = json.loads((part / CONFIG).read_text(encoding="utf-8")) | {"num_classes": num_classes}
    atomic_write(part / CONFIG, (json.dumps(model, indent=2) + "\n").encode())
    record = replace(
        run.record,
        num_classes=num_classes,
        settings=deciding(plan.cfg),
        taken_from=str(run.folder.resolve()),
    )
    record.write(part)
    shutil.rmtree(plan.folder, ignore_errors=True)  # what an interrupted job had begun
    part.rename(plan.folder)
    with stage_folder(plan.folder):
        keep_config(plan)


def _compared(settings: dict[str, object]) -> dict[str, object]:
    """Settings without those that say the sizes of the network, which is compared itself."""
    return {
        key: value
        for key, value in settings.items()
        if key == "backbone._target_" or not key.startswith(("num_classes", "backbone."))
    }

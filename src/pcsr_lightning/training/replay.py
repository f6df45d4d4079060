"""Trains a recorded run again, and compares what comes out with what came out then."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pcsr_lightning.errors import ConfigError, DataError, TrainingError
from pcsr_lightning.settings.instantiation import in_plain_values, instantiate
from pcsr_lightning.training.ending import trial_run
from pcsr_lightning.training.own_process import train_in_own_process
from pcsr_lightning.training.provenance import (
    PICTURES,
    Digests,
    changed_pictures,
    digests_of,
)
from pcsr_lightning.weights import RunRecord, file_hash, load
from pcsr_lightning.weights.runs import WEIGHTS

log = logging.getLogger(__name__)

_MOST = 5  # pictures that a message names


@dataclass(frozen=True)
class Recorded:
    """A run as its folder describes it.

    Attributes:
        folder: its run folder.
        record: ``run.json``.
        config: the composed config, not resolved.
    """

    folder: Path
    record: RunRecord
    config: DictConfig

    @property
    def cwd(self) -> Path:
        """The folder that relative paths of its config start from, if it is still there."""
        then = Path(self.record.provenance.get("cwd", "."))
        return then if then.is_dir() else Path.cwd()


def replay(folder: Path, output: Path) -> list[str]:
    """Trains a run again from its recorded config; of ``stage=all`` each of its stages.

    Args:
        folder: the run folder.
        output: a new folder for what is trained now.

    Returns:
        A line for each training, which ended in the same weights.

    Raises:
        ConfigError: there is no record to go by, or the run is not what its config alone says.
        DataError: the pictures are others now; names them.
        TrainingError: the weights are others; says what else is.
    """
    stages = sorted(folder.glob("stage-*"), key=_finished)
    runs = [recorded(stage) for stage in stages or [folder]]
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output}: is not empty; name a new folder for the replay")
    for run in runs:  # all of them before hours are spent
        check_replayable(run)
    lines = []
    for run in runs:
        target = output / run.folder.name if stages else output
        lines.append(replay_one(run, target))
    return lines


def recorded(folder: Path) -> Recorded:
    """Reads what a run folder says of its run.

    Raises:
        ConfigError: the record, the config or the model is missing.
    """
    record, config = RunRecord.read(folder), folder / ".hydra" / "config.yaml"
    for path in (config, folder / WEIGHTS):
        if record is None or not path.is_file():
            missing = folder / "run.json" if record is None else path
            raise ConfigError(f"{missing}: missing; expected the folder of a training that ended")
    assert record is not None
    found = OmegaConf.load(config)
    assert isinstance(found, DictConfig)
    return Recorded(folder, record, found)


def check_replayable(run: Recorded) -> None:
    """Whether a run's config says all of it, and its pictures and its earlier model are as then.

    Raises:
        ConfigError: the run was changed on the way, or stopped by something beside its config; or
            the model that it started from is another now.
        DataError: names the pictures that have changed.
    """
    record = run.record
    trial = trial_run(in_plain_values(run.config.trainer, "trainer"))
    if not record.complete and trial is None:
        raise ConfigError(f"{run.folder}: {record.ended}, which cannot be repeated exactly")
    if record.complete and record.settings.get("trainer.max_time") is not None:
        raise ConfigError(
            f"{run.folder}: was trained by the clock ({record.ended}): how many steps that makes, "
            "and at which learning rates, cannot be repeated exactly"
        )
    if record.changed:
        steps = ", ".join(str(change["step"]) for change in record.changed)
        raise ConfigError(
            f"{run.folder}: was resumed with other settings at step {steps}, so no single config "
            "trains it again"
        )
    if record.model is not None and file_hash(run.folder / WEIGHTS) != record.model:
        raise ConfigError(f"{run.folder / WEIGHTS}: is not the file that run.json was written for")
    if record.init is not None:
        path = Path(record.init["path"])
        if not path.is_file() or file_hash(path) != record.init["sha256"]:
            raise ConfigError(f"{path}: the model that the run started from is missing or another")
    check_pictures(run)


def check_pictures(run: Recorded) -> None:
    """Whether the pictures of a run are what they were.

    Raises:
        DataError: names those that are not.
    """
    if not (run.folder / PICTURES).is_file():
        log.warning("%s: does not say which pictures it was trained on", run.folder)
        return
    before: Digests = json.loads((run.folder / PICTURES).read_text(encoding="utf-8"))
    with contextlib.chdir(run.cwd):
        data = instantiate(run.config.data, "data")
        data.prepare_data()
        now = digests_of(data)
    changed = changed_pictures(before, now or {})
    if changed:
        more = f" and {len(changed) - _MOST} more" if len(changed) > _MOST else ""
        raise DataError(
            f"{run.folder}: the pictures are not those of the run: "
            f"{', '.join(changed[:_MOST])}{more}"
        )


def replay_one(run: Recorded, target: Path) -> str:
    """Trains one run again into ``target`` and compares; returns a line that they are the same.

    Raises:
        TrainingError: the training failed, or ended in other weights.
    """
    target.mkdir(parents=True, exist_ok=True)  # an existing folder's name is taken literally
    with TemporaryDirectory() as folder:
        config = run.config.copy()
        config.init = None if run.record.init is None else run.record.init["path"]
        config.ckpt_path, config.logger = None, {}  # from its start, without logs
        OmegaConf.save(config, Path(folder) / "replayed.yaml")
        code = train_in_own_process(
            [
                f"--config-dir={folder}",
                "--config-name=replayed",
                f"hydra.run.dir={target.resolve()}",
            ],
            run.cwd,
        )
    now = RunRecord.read(target)
    if code != 0 or now is None:
        raise TrainingError(f"{run.folder}: the training ended with exit code {code}, see above")
    hashes = [file_hash(folder / WEIGHTS) for folder in (run.folder, target)]
    name = f"stage {now.stage}, {now.steps} steps"
    if hashes[0] == hashes[1]:
        return f"{run.folder}: the same weights ({name}, SHA-256 {hashes[0][:16]}...)"
    differ = differences(run.record.provenance, now.provenance)
    what = (
        ", ".join(differ)
        if differ
        else (
            "code, versions, pictures and device are the same: operations that are not "
            "deterministic (trainer.deterministic=true)"
        )
    )
    largest = largest_difference(run.folder, target)
    raise TrainingError(
        f"{run.folder}: other weights ({name}), by up to {largest:.3g}, in {target}; what differs: "
        f"{what}"
    )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what the provenance of two runs differs, in words."""
    old, new = _flat(before), _flat(now)
    return [
        f"{key} was {old.get(key)}, is {new.get(key)}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and key != "cwd"
    ]


def largest_difference(one: Path, other: Path) -> float:
    """Between the weights of two run folders' models, which have the same architecture."""
    a, b = (load(folder, patch_routed=True).state_dict() for folder in (one, other))
    return max(float((a[key].double() - b[key].double()).abs().max()) for key in a)


def _flat(provenance: Mapping[str, Any]) -> dict[str, str]:
    found = {key: str(value) for key, value in provenance.items() if key not in ("git", "versions")}
    found |= provenance.get("versions", {})
    for state in provenance.get("git", []):
        changes = " with changes" if state["dirty"] else ""
        found[f"the commit of {Path(state['folder']).name}"] = f"{state['commit'][:12]}{changes}"
    return found


def _finished(folder: Path) -> float:
    record = RunRecord.read(folder)
    return 0.0 if record is None else record.finished

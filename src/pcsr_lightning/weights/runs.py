"""Records of training runs: what each was, how it ended, and what it can be compared by."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.errors import ConfigError

log = logging.getLogger(__name__)

RECORD = "run.json"
WEIGHTS = "model.safetensors"
LAST = Path("checkpoints", "last.ckpt")
"""Within a run folder: the checkpoint to resume from."""


@dataclass(frozen=True)
class RunRecord:
    """What a run was, as ``run.json`` in its folder says.

    Records of earlier versions lack the fields from ``complete`` on.

    Attributes:
        stage: ``original``, ``1``, ``2``, ...
        backbone: its name.
        num_classes: ``M`` of the model it is a stage of.
        steps: optimizer steps done.
        finished: when it ended, in seconds since the epoch.
        val_psnr: PSNR of its last validation in dB, if there was one.
        complete: it was trained to its end. A dry run, or one that a limit has stopped, is not.
        ended: how it ended, in words.
        seed: the setting.
        scale: the lowest and the highest.
        network: config of its network.
        data: ``train`` and ``valid``, SHA-256 over names and content of the pictures.
        model: SHA-256 of ``model.safetensors``.
        init: ``path`` and ``sha256`` of the model that it started from.
        settings: all that decide what comes out, by name.
        changed: settings that were others before the run was resumed, see
            :mod:`pcsr_lightning.training.resuming`.
        taken_from: the run folder whose result this one took over instead of training again.
        provenance: commit, versions, device, see :mod:`pcsr_lightning.training.provenance`.
    """

    stage: str
    backbone: str
    num_classes: int
    steps: int
    finished: float
    val_psnr: float | None = None
    complete: bool = True
    ended: str = ""
    seed: int | None = None
    scale: list[float] | None = None
    network: dict[str, Any] | None = None
    data: dict[str, str] | None = None
    model: str | None = None
    init: dict[str, str] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    changed: list[dict[str, Any]] = field(default_factory=list)
    taken_from: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Keeps the record in a run folder; written atomically."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        atomic_write(folder / RECORD, text.encode())

    @classmethod
    def read(cls, folder: Path) -> RunRecord | None:
        """The record in a run folder; ``None`` where there is none, or one that cannot be read."""
        path = folder / RECORD
        if not path.is_file():
            return None
        known = {one.name for one in fields(cls)}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{key: value for key, value in content.items() if key in known})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s: not a readable run record, ignored (%s)", path, error)
            return None


def is_finished(folder: Path) -> bool:
    """Whether a training in this folder has come to its own end, and not to a limit."""
    if not (folder / WEIGHTS).is_file():
        return False
    record = RunRecord.read(folder)
    return record is not None and record.complete


def runs_below(folder: Path) -> Iterator[tuple[Path, RunRecord]]:
    """Run folders and their records, in ``folder`` and below it, finished or not."""
    for path in sorted(folder.rglob(RECORD)):
        record = RunRecord.read(path.parent)
        if record is not None:
            yield path.parent, record


def newest_finished(
    output: Path, stage: str, backbone: str, num_classes: int
) -> tuple[Path, RunRecord] | None:
    """The newest finished run below ``output`` of a stage and model, or ``None``.

    A stage builds on the run that agrees with it in more than that, see
    :mod:`pcsr_lightning.training.earlier_run`.
    """
    wanted = (stage, backbone, num_classes)
    found = [
        (folder, record)
        for folder, record in runs_below(output)
        if (record.stage, record.backbone, record.num_classes) == wanted and is_finished(folder)
    ]
    return max(found, key=lambda run: (run[1].finished, str(run[0])), default=None)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex digits; of equal models it is equal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def last_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means: a file, or the last one of a run folder.

    Args:
        path: a checkpoint, a run folder, or the folder of its checkpoints.

    Raises:
        ConfigError: there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise ConfigError(f"ckpt_path={path}: no such file or folder")
    for inside in (LAST, Path(LAST.name)):
        if (path / inside).is_file():
            return path / inside
    there = sorted(str(found.relative_to(path)) for found in path.rglob("*.ckpt"))[:3]
    others = f"; name one of {', '.join(there)}" if there else ""
    raise ConfigError(f"ckpt_path={path}: there is no {LAST} in this folder{others}")

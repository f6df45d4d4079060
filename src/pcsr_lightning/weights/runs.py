"""Records of training runs, so that a stage finds the finished run of the stage before."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from pcsr_lightning.atomic_io import atomic_write

log = logging.getLogger(__name__)

RECORD = "run.json"
LAST = Path("checkpoints", "last.ckpt")
"""Within a run folder: the checkpoint to resume from."""


@dataclass(frozen=True)
class RunRecord:
    """What a finished run was.

    Attributes:
        stage: ``original``, ``1``, ``2``, ...
        backbone: its name.
        num_classes: ``M`` of the model it is a stage of.
        steps: optimizer steps done.
        finished: seconds since the epoch.
        val_psnr: PSNR of its last validation in dB, if there was one.
    """

    stage: str
    backbone: str
    num_classes: int
    steps: int
    finished: float
    val_psnr: float | None = None

    def write(self, folder: Path) -> None:
        """Keeps the record in a run folder; written atomically."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        atomic_write(folder / RECORD, text.encode())


def is_finished(folder: Path) -> bool:
    """Whether a training in this folder has come to its end."""
    return (folder / RECORD).is_file() and (folder / "model.safetensors").is_file()


def newest_finished(
    output: Path, stage: str, backbone: str, num_classes: int
) -> tuple[Path, RunRecord] | None:
    """The run folder below ``output`` of the newest finished run of this kind, or ``None``."""
    found: list[tuple[float, Path, RunRecord]] = []
    for path in output.rglob(RECORD):
        try:
            record = RunRecord(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s: not a readable run record, ignored (%s)", path, error)
            continue
        same = (record.stage, record.backbone, record.num_classes) == (stage, backbone, num_classes)
        if same and is_finished(path.parent):
            found.append((record.finished, path.parent, record))
    if not found:
        return None
    _, folder, record = max(found, key=lambda run: (run[0], str(run[1])))
    return folder, record

"""Trained networks: released models, model files, checkpoints, finished runs."""

from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.weights.automatic import ModelChoice, choose_model, photo_counterpart
from pcsr_lightning.weights.descriptions import ModelDescription, describe_models
from pcsr_lightning.weights.files import load_model_file, read_checkpoint, save
from pcsr_lightning.weights.hub import from_pretrained, push_to_hub, save_pretrained
from pcsr_lightning.weights.registry import DEFAULT_MODEL, find_model, list_models, load
from pcsr_lightning.weights.runs import (
    LAST,
    RECORD,
    RunRecord,
    file_hash,
    is_finished,
    last_checkpoint,
    newest_finished,
    runs_below,
)
from pcsr_lightning.weights.scales import scale_warning

__all__ = [
    "DEFAULT_MODEL",
    "LAST",
    "PCSR",
    "RECORD",
    "ModelChoice",
    "ModelDescription",
    "Original",
    "RunRecord",
    "choose_model",
    "describe_models",
    "file_hash",
    "find_model",
    "from_pretrained",
    "is_finished",
    "last_checkpoint",
    "list_models",
    "load",
    "load_model_file",
    "newest_finished",
    "photo_counterpart",
    "push_to_hub",
    "read_checkpoint",
    "runs_below",
    "save",
    "save_pretrained",
    "scale_warning",
]

"""From pictures to a released model: its training, its measurements and its model card."""

from pcsr_lightning.release.experiment import (
    StageRun,
    list_experiments,
    model_name,
    train_experiment,
)
from pcsr_lightning.release.make_release import Sources, release, release_weights
from pcsr_lightning.release.robustness import Robustness, robustness

__all__ = [
    "Robustness",
    "Sources",
    "StageRun",
    "list_experiments",
    "model_name",
    "release",
    "release_weights",
    "robustness",
    "train_experiment",
]

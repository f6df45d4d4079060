"""Training: one LightningModule a stage, losses, optimizers, callbacks, and all stages in order."""

from pcsr_lightning.training.callbacks.freezing import FreezeEarlierStages
from pcsr_lightning.training.initialization import init_from_previous_stage, warm_start
from pcsr_lightning.training.losses import SquaredError, average_loss
from pcsr_lightning.training.modules import (
    FirstStage,
    LaterStage,
    OriginalStage,
    PCSRStage,
    SRStage,
)
from pcsr_lightning.training.optim import Muon, cosine, trapezoid

__all__ = [
    "FirstStage",
    "FreezeEarlierStages",
    "LaterStage",
    "Muon",
    "OriginalStage",
    "PCSRStage",
    "SRStage",
    "SquaredError",
    "average_loss",
    "cosine",
    "init_from_previous_stage",
    "trapezoid",
    "warm_start",
]

"""Training: one LightningModule a stage, losses, optimizers, callbacks, and all stages in order."""

from pcsr_lightning.training.callbacks.freezing import FreezeEarlierStages
from pcsr_lightning.training.losses import average_loss, reconstruction_loss
from pcsr_lightning.training.modules.base import SRStage
from pcsr_lightning.training.modules.original import OriginalStage
from pcsr_lightning.training.modules.upsampling import FirstStage, LaterStage, PCSRStage, grow
from pcsr_lightning.training.optim.muon import Muon
from pcsr_lightning.training.optim.schedule import Schedule

__all__ = [
    "FirstStage",
    "FreezeEarlierStages",
    "LaterStage",
    "Muon",
    "OriginalStage",
    "PCSRStage",
    "SRStage",
    "Schedule",
    "average_loss",
    "grow",
    "reconstruction_loss",
]

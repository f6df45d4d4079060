"""One LightningModule a stage, the freezing callback, and the losses."""

from pcsr_lightning.stages.base import SRStage
from pcsr_lightning.stages.freezing import FreezeEarlierStages
from pcsr_lightning.stages.losses import average_loss, reconstruction_loss
from pcsr_lightning.stages.muon import Muon
from pcsr_lightning.stages.original import OriginalStage
from pcsr_lightning.stages.schedule import Schedule
from pcsr_lightning.stages.upsampling import FirstStage, LaterStage, PCSRStage, grow

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

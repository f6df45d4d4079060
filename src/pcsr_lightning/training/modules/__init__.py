"""One LightningModule a stage of training."""

from pcsr_lightning.training.modules.base import SRStage
from pcsr_lightning.training.modules.first_stage import FirstStage
from pcsr_lightning.training.modules.later_stage import LaterStage
from pcsr_lightning.training.modules.original_stage import OriginalStage
from pcsr_lightning.training.modules.pcsr_stage import PCSRStage

__all__ = ["FirstStage", "LaterStage", "OriginalStage", "PCSRStage", "SRStage"]

"""One LightningModule a stage of training."""

from pcsr_lightning.networks import ARM, AnyNetwork, ClassSR, Original
from pcsr_lightning.training.modules.arm_stage import ARMStage
from pcsr_lightning.training.modules.base import SRStage
from pcsr_lightning.training.modules.classsr_stages import ClassSRBranches, ClassSRStage
from pcsr_lightning.training.modules.first_stage import FirstStage
from pcsr_lightning.training.modules.later_stage import LaterStage
from pcsr_lightning.training.modules.original_stage import OriginalStage
from pcsr_lightning.training.modules.pcsr_stage import PCSRStage


def stage_class(network: AnyNetwork) -> type[SRStage]:
    """The stage that ends in such a network."""
    if isinstance(network, Original):
        return OriginalStage
    if isinstance(network, ARM):
        return ARMStage
    if isinstance(network, ClassSR):
        return ClassSRStage
    return FirstStage if network.num_classes == 1 else LaterStage


__all__ = [
    "ARMStage",
    "ClassSRBranches",
    "ClassSRStage",
    "FirstStage",
    "LaterStage",
    "OriginalStage",
    "PCSRStage",
    "SRStage",
    "stage_class",
]

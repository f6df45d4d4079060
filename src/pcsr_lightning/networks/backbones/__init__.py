"""The backbones: our four, and whatever is registered beside them."""

from pcsr_lightning.networks.backbones.base import Backbone, DefaultSizes
from pcsr_lightning.networks.backbones.bsrn import BSRN
from pcsr_lightning.networks.backbones.building import (
    build_backbone,
    described,
    in_plain_values,
    settle,
)
from pcsr_lightning.networks.backbones.carn import CARN
from pcsr_lightning.networks.backbones.fsrcnn import FSRCNN
from pcsr_lightning.networks.backbones.registry import (
    BACKBONES,
    UnknownBackboneError,
    backbone_class,
    import_backbone,
    is_ours,
    register_backbone,
)
from pcsr_lightning.networks.backbones.srresnet import SRResNet

__all__ = [
    "BACKBONES",
    "BSRN",
    "CARN",
    "FSRCNN",
    "Backbone",
    "DefaultSizes",
    "SRResNet",
    "UnknownBackboneError",
    "backbone_class",
    "build_backbone",
    "described",
    "import_backbone",
    "in_plain_values",
    "is_ours",
    "register_backbone",
    "settle",
]

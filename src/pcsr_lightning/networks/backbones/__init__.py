"""The backbones: our own, and whatever is registered beside them."""

from pcsr_lightning.networks.backbones.base import Backbone, DefaultSizes
from pcsr_lightning.networks.backbones.bsrn import BSRN
from pcsr_lightning.networks.backbones.build import (
    backbone_config,
    build_backbone,
    class_config,
    validate_backbone,
)
from pcsr_lightning.networks.backbones.carn import CARN
from pcsr_lightning.networks.backbones.compact import Compact
from pcsr_lightning.networks.backbones.fsrcnn import FSRCNN
from pcsr_lightning.networks.backbones.registry import (
    BACKBONES,
    UnknownBackboneError,
    backbone_class,
    import_backbone,
    is_builtin,
    register_backbone,
)
from pcsr_lightning.networks.backbones.srresnet import SRResNet

__all__ = [
    "BACKBONES",
    "BSRN",
    "CARN",
    "FSRCNN",
    "Backbone",
    "Compact",
    "DefaultSizes",
    "SRResNet",
    "UnknownBackboneError",
    "backbone_class",
    "backbone_config",
    "build_backbone",
    "class_config",
    "import_backbone",
    "is_builtin",
    "register_backbone",
    "validate_backbone",
]

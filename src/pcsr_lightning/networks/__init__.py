"""Backbones, pixel-level MLPs, PCSR, original models. Only torch and fvcore."""

from pcsr_lightning.networks.arm import ARM
from pcsr_lightning.networks.backbones import (
    BACKBONES,
    Backbone,
    DefaultSizes,
    UnknownBackboneError,
    backbone_class,
    build_backbone,
    import_backbone,
    register_backbone,
)
from pcsr_lightning.networks.bias_shifts import (
    add_bias_shifts,
    biases_at,
    fix_strength,
    has_bias_shifts,
)
from pcsr_lightning.networks.branch_flops import BranchMacs, branch_macs, count_macs, hoisted_macs
from pcsr_lightning.networks.build import (
    AnyNetwork,
    build_network,
    default_config,
    patch_routed_config,
    upsampler_widths,
)
from pcsr_lightning.networks.cell_queries import CellQueries
from pcsr_lightning.networks.classsr import ClassSR
from pcsr_lightning.networks.compiled import uncompiled, unwrapped, without_wrappers
from pcsr_lightning.networks.modes import evaluating
from pcsr_lightning.networks.original import Original
from pcsr_lightning.networks.padded import PaddedTwin, wider_backbone
from pcsr_lightning.networks.patch_routed import PatchRouted
from pcsr_lightning.networks.pcsr import (
    PCSR,
    PCSROutput,
    bilinear_at,
    bilinear_upsample,
    check_widths,
)
from pcsr_lightning.networks.pixel_mlp import BilinearOnly, PixelMLP, plain_inputs
from pcsr_lightning.networks.query_grid import QueryGrid
from pcsr_lightning.networks.reparameterized import (
    folded_state,
    is_reparameterized,
    reparameterize,
    start_from_identity,
)

__all__ = [
    "ARM",
    "BACKBONES",
    "PCSR",
    "AnyNetwork",
    "Backbone",
    "BilinearOnly",
    "BranchMacs",
    "CellQueries",
    "ClassSR",
    "DefaultSizes",
    "Original",
    "PCSROutput",
    "PaddedTwin",
    "PatchRouted",
    "PixelMLP",
    "QueryGrid",
    "UnknownBackboneError",
    "add_bias_shifts",
    "backbone_class",
    "biases_at",
    "bilinear_at",
    "bilinear_upsample",
    "branch_macs",
    "build_backbone",
    "build_network",
    "check_widths",
    "count_macs",
    "default_config",
    "evaluating",
    "fix_strength",
    "folded_state",
    "has_bias_shifts",
    "hoisted_macs",
    "import_backbone",
    "is_reparameterized",
    "patch_routed_config",
    "plain_inputs",
    "register_backbone",
    "reparameterize",
    "start_from_identity",
    "uncompiled",
    "unwrapped",
    "upsampler_widths",
    "wider_backbone",
    "without_wrappers",
]

"""Inference: a picture through a trained network, every pixel through its own upsampler."""

import warnings
from typing import TYPE_CHECKING, Any

from pcsr_lightning.inference.alpha_rows import AlphaRows, upscaled_alpha
from pcsr_lightning.inference.checks import MAX_SCALE, output_size
from pcsr_lightning.inference.class_map import class_colours, class_map
from pcsr_lightning.inference.execution import Execution, Precision
from pcsr_lightning.inference.flops import Flops, all_heavy_flops, original_flops, routing_note
from pcsr_lightning.inference.input_rows import PictureRows
from pcsr_lightning.inference.patch_routing import (
    check_patch_routing,
    patch_flops,
    upscale_each,
)
from pcsr_lightning.inference.result import UpscaleResult
from pcsr_lightning.inference.session import Session
from pcsr_lightning.inference.time_budget import Timing, times_of
from pcsr_lightning.inference.time_model import kept_times
from pcsr_lightning.inference.upscale_routings import upscale_routings
from pcsr_lightning.inference.upscale_rows import PictureSink, RowsDone, upscale_rows
from pcsr_lightning.inference.upscaling import upscale, upscale_by
from pcsr_lightning.routing import RoutingConfig

__all__ = [
    "MAX_SCALE",
    "AlphaRows",
    "Execution",
    "Flops",
    "PictureRows",
    "PictureSink",
    "Precision",
    "RoutingConfig",
    "RowsDone",
    "Session",
    "Timing",
    "UpscaleResult",
    "all_heavy_flops",
    "check_patch_routing",
    "class_colours",
    "class_map",
    "kept_times",
    "original_flops",
    "output_size",
    "patch_flops",
    "routing_note",
    "times_of",
    "upscale",
    "upscale_by",
    "upscale_each",
    "upscale_routings",
    "upscale_rows",
    "upscaled_alpha",
]


if not TYPE_CHECKING:  # a type checker shall see the names above only

    def __getattr__(name: str) -> Any:
        """Names of earlier versions."""
        if name == "Routing":
            warnings.warn("Routing is now RoutingConfig", DeprecationWarning, stacklevel=2)
            return RoutingConfig
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

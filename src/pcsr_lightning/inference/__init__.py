"""Inference: a picture through a trained network, every pixel through its own upsampler."""

from pcsr_lightning.inference.analysis import Analysis, UpscaleResult
from pcsr_lightning.inference.checks import MAX_SCALE, output_size
from pcsr_lightning.inference.class_map import class_colours, class_map
from pcsr_lightning.inference.flops import Flops, all_heavy_flops, original_flops
from pcsr_lightning.inference.routing_choice import Routing
from pcsr_lightning.inference.upscaler import upscale

__all__ = [
    "MAX_SCALE",
    "Analysis",
    "Flops",
    "Routing",
    "UpscaleResult",
    "all_heavy_flops",
    "class_colours",
    "class_map",
    "original_flops",
    "output_size",
    "upscale",
]

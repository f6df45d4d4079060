"""Inference: a picture through a trained network, every pixel through its own upsampler."""

from pcsr_lightning.inference.analysis import Analysis, UpscaleResult
from pcsr_lightning.inference.budget import budget_words
from pcsr_lightning.inference.checks import MAX_SCALE, output_size
from pcsr_lightning.inference.class_map import class_colours, class_map
from pcsr_lightning.inference.execution import Execution, Precision
from pcsr_lightning.inference.flops import Flops, all_heavy_flops, original_flops
from pcsr_lightning.inference.input_rows import PictureRows
from pcsr_lightning.inference.routing_choice import Routing
from pcsr_lightning.inference.streamed import PictureSink, RowsDone, upscale_rows
from pcsr_lightning.inference.upscaler import choose_routing, upscale, upscale_by

__all__ = [
    "MAX_SCALE",
    "Analysis",
    "Execution",
    "Flops",
    "PictureRows",
    "PictureSink",
    "Precision",
    "Routing",
    "RowsDone",
    "UpscaleResult",
    "all_heavy_flops",
    "budget_words",
    "choose_routing",
    "class_colours",
    "class_map",
    "original_flops",
    "output_size",
    "upscale",
    "upscale_by",
    "upscale_rows",
]

"""Image files in and out, and MATLAB-style bicubic resizing."""

from pcsr_lightning.images.alpha import AlphaRange, ColourRows, fill_under_alpha
from pcsr_lightning.images.bicubic import RESIZE_KERNELS, ResizeKernel, bicubic
from pcsr_lightning.images.bicubic_crops import bicubic_crops
from pcsr_lightning.images.condition import PictureCondition, picture_condition
from pcsr_lightning.images.files import decode, read, read_rgb8
from pcsr_lightning.images.formats import (
    FALLBACK,
    READ_SUFFIXES,
    SUFFIXES,
    check_writable,
    is_picture,
    own_suffix,
)
from pcsr_lightning.images.listing import FolderWalk, list_pictures
from pcsr_lightning.images.metadata import Metadata
from pcsr_lightning.images.picture import Picture
from pcsr_lightning.images.reading import MAX_PIXELS
from pcsr_lightning.images.writing import (
    TakesRows,
    encode,
    encoded_by_rows,
    outline,
    write,
    written_by_rows,
)

__all__ = [
    "FALLBACK",
    "MAX_PIXELS",
    "READ_SUFFIXES",
    "RESIZE_KERNELS",
    "SUFFIXES",
    "AlphaRange",
    "ColourRows",
    "FolderWalk",
    "Metadata",
    "Picture",
    "PictureCondition",
    "ResizeKernel",
    "TakesRows",
    "bicubic",
    "bicubic_crops",
    "check_writable",
    "decode",
    "encode",
    "encoded_by_rows",
    "fill_under_alpha",
    "is_picture",
    "list_pictures",
    "outline",
    "own_suffix",
    "picture_condition",
    "read",
    "read_rgb8",
    "write",
    "written_by_rows",
]

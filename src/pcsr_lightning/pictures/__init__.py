"""Picture files in and out, and MATLAB-style bicubic resizing."""

from pcsr_lightning.pictures.bicubic import bicubic
from pcsr_lightning.pictures.picture_files import (
    SUFFIXES,
    Picture,
    list_pictures,
    read,
    read_rgb8,
    write,
)

__all__ = ["SUFFIXES", "Picture", "bicubic", "list_pictures", "read", "read_rgb8", "write"]

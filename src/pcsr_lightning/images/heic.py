"""HEIC files, the photographs of many phones, through the optional package pillow-heif.

libvips' own build has no decoder for HEVC, which they are compressed with.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import BinaryIO

import numpy as np
import pyvips

_FIELDS = {"exif": "exif-data", "xmp": "xmp-data", "icc_profile": "icc-profile-data"}


def read_heic(file: BinaryIO, check: Callable[[int, int], None]) -> pyvips.Image:
    """The primary picture of a file, upright, as libvips would give it, with its metadata.

    Args:
        file: at its beginning.
        check: raises if a picture of (h, w) is not to be read.

    Raises:
        ImportError: pillow-heif is not installed.
        ValueError: it cannot read the file.
        OSError: the file cannot be read.
    """
    if find_spec("pillow_heif") is None:
        raise ImportError("HEIC needs the package pillow-heif: pip install pillow-heif")
    import pillow_heif

    try:
        heif = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
        picture = heif[heif.primary_index]
        check(picture.size[1], picture.size[0])
        pixels_hwc = np.ascontiguousarray(np.asarray(picture))
    except (RuntimeError, SyntaxError, EOFError) as error:
        raise ValueError(str(error)) from error
    wide = pixels_hwc.dtype == np.uint16
    grey = pixels_hwc.ndim == 2
    names = {(False, False): "srgb", (False, True): "rgb16", (True, False): "b-w"}
    image = pyvips.Image.new_from_array(
        pixels_hwc, interpretation=names.get((grey, wide), "grey16")
    ).copy()
    for name, field in _FIELDS.items():
        if picture.info.get(name):
            image.set_type(pyvips.GValue.blob_type, field, picture.info[name])
    # libheif has turned the pixels already, whatever EXIF says.
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    if wide:
        image.set_type(pyvips.GValue.gstr_type, "heif-compression", "hevc")
        depth = picture.info["bit_depth"]
        image.set_type(pyvips.GValue.gint_type, "bits-per-sample", depth)
    return image

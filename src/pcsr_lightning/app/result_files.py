"""The files of a result: those that show it in the browser, and the one to take away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import torch
from PIL import Image
from torch import Tensor

from pcsr_lightning.app import texts
from pcsr_lightning.app.loading import RefusedError, Remedy
from pcsr_lightning.app.visitors import Visitor
from pcsr_lightning.app.work import bicubic_result
from pcsr_lightning.errors import PCSRError, PictureError
from pcsr_lightning.images import check_writable, write
from pcsr_lightning.images.comparison import eight_bit
from pcsr_lightning.images.picture import floats
from pcsr_lightning.inference import class_colours

LONGEST_NAME = 60
FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WebP": ".webp"}
"""What results can be downloaded as."""


def viewer(visitor: Visitor) -> dict[str, Any]:
    """What the viewer shows; files that are there already are used again."""
    run, session = visitor.run, visitor.session
    assert run is not None
    assert session is not None
    key = f"{run.ticket[0]} {run.choices}"
    if visitor.shown != key:
        save_view(visitor, "after", run.result.image[0])
        save_map(visitor, run.result.assignment[0])
        visitor.shown = key
    if "bicubic" not in visitor.views:
        save_view(visitor, "bicubic", bicubic_result(visitor))
    if visitor.heavy is not None and "all-heavy" not in visitor.views:
        save_view(visitor, "all-heavy", visitor.heavy.image_3HW)
    reference = visitor.fitting_reference
    if reference is not None and "reference" not in visitor.views:
        save_view(visitor, "reference", reference)
    addresses = {name: texts.address(path) for name, path in visitor.views.items()}
    return {
        "key": key,
        "size": [session.size[1], session.size[0]],
        "after": addresses["after"],
        "map": addresses["map"],
        "before": {n: addresses.get(n) for n in ("bicubic", "all-heavy", "reference")},
        "label": f"PCSR, {texts.describe_choices(run.choices)}",
    }


def save_view(visitor: Visitor, name: str, rgb_3HW: Tensor) -> Path:
    """A picture as the browser shows it: 8 bit, lossless, in the file's own colour space."""
    assert visitor.part is not None
    alpha = visitor.alpha_1HW
    rgb = rgb_3HW if rgb_3HW.dtype == torch.uint8 else eight_bit(rgb_3HW).to(torch.uint8)
    parts = [rgb] if alpha is None else [rgb, eight_bit(floats(alpha)).to(torch.uint8)]
    pixels = np.ascontiguousarray(torch.cat(parts).permute(1, 2, 0).cpu().numpy())
    path, icc = visitor.new_file(), visitor.part.metadata.icc
    image = pyvips.Image.new_from_array(pixels, interpretation="srgb")
    if icc is not None and icc[16:20] == b"RGB ":
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    # Speed counts here, not size: the way to the browser is short.
    image.pngsave(str(path), compression=1, filter="sub")
    visitor.keep_view(name, path)
    return path


def save_map(visitor: Visitor, class_HW: Tensor) -> Path:
    """The classes as a picture of few colours, to be laid over the result."""
    assert visitor.session is not None
    colours = (class_colours(visitor.session.num_classes) * 255).round().to(torch.uint8)
    image = Image.fromarray(class_HW.cpu().numpy(), "P")
    image.putpalette(colours.flatten().tolist())
    path = visitor.new_file()
    image.save(path, compress_level=1)
    visitor.keep_view("map", path)
    return path


def save_overview(visitor: Visitor) -> Path:
    """The whole picture, small, with a frame around the part that is looked at."""
    loaded, window = visitor.loaded, visitor.window
    assert loaded is not None
    assert loaded.overview_hw3 is not None
    assert window is not None
    h, w = loaded.overview_hw3.shape[:2]
    down, across = h / loaded.size[0], w / loaded.size[1]
    top, left, high, wide = (round(n * f) for n, f in zip(window, (down, across) * 2, strict=True))
    image = pyvips.Image.new_from_array(loaded.overview_hw3, interpretation="srgb")
    for off, colour in ((0, 255), (1, 255), (2, 0)):
        sides = (left - off, top - off, wide + 2 * off, high + 2 * off)
        image = image.draw_rect([colour] * 3, *sides)
    path = visitor.new_file(".jpg")
    image.jpegsave(str(path), Q=85)
    visitor.keep_view("overview", path)
    return path


def save_result(visitor: Visitor, format: str, quality: int) -> Path:
    """The result as a file to take away, with the bit depth, alpha and profile it came with.

    It has the picture's name, in a folder that nobody can guess. Whoever computes for the visitor
    is not waited for.

    Args:
        visitor: with a result.
        format: a key of :data:`FORMATS`.
        quality: 1 to 100, for formats that have one.

    Raises:
        RefusedError: the format cannot hold so large a picture.
        PCSRError: there is no result, or it cannot be written.
    """
    run = visitor.run
    if run is None:
        raise PCSRError("there is no result yet: drop a picture, or choose a sample")
    suffix, (H, W) = FORMATS[format], run.picture.rgb.shape[1:]
    try:
        check_writable(suffix, (int(H), int(W)))
    except PictureError as error:
        raise RefusedError(str(error), Remedy("Use PNG", format="PNG")) from error
    name = f"{plain_name(run.name)}_x{run.choices.scale:g}{suffix}"
    path = visitor.new_file("") / name
    path.parent.mkdir()
    write(run.picture, path, quality=quality)
    visitor.keep_download(path)
    return path


def plain_name(name: str) -> str:
    """A file's name without its suffix and whatever could mean anything in a path or a header."""
    kept = "".join(c if c.isalnum() or c in " -_.()" else "_" for c in Path(name).stem)
    return kept.strip(" .")[:LONGEST_NAME] or "picture"

"""Reading and writing picture files whole: 16 bit, alpha, colour profile and orientation included.

libvips does the work (Pillow silently opens 16-bit RGB as 8 bit); BMP, which its binary lacks,
goes through Pillow. Shapes: `rgb` is (3, h, w), `alpha` (1, h, w), arrays of libvips (h, w, bands).
"""

import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyvips
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pcsr_lightning.errors import PictureError

_log = logging.getLogger(__name__)
# It reports every thread pool, and every oddity of a file that can be read all the same.
logging.getLogger("pyvips").setLevel(logging.ERROR)

_WRITE_OPTIONS: dict[str, dict[str, object]] = {
    ".png": {},
    ".jpg": {"Q": 95, "subsample_mode": "off"},
    ".jpeg": {"Q": 95, "subsample_mode": "off"},
    ".webp": {"Q": 95, "smart_subsample": True},
    ".bmp": {},
    ".tif": {"compression": "deflate", "predictor": "horizontal"},
    ".tiff": {"compression": "deflate", "predictor": "horizontal"},
}
SUFFIXES = tuple(_WRITE_OPTIONS)
_NO_ALPHA = {".jpg", ".jpeg", ".bmp"}
_SIXTEEN_BIT = {".png", ".tif", ".tiff"}
_ROWS = 128


@dataclass(frozen=True)
class Picture:
    """A picture file's content, upright.

    Attributes:
        rgb: float32 (3, h, w) in [0, 1]; three equal channels for a grey file. To be written it may
            also hold whole numbers, uint8 or uint16 over their whole range.
        alpha: float32 (1, h, w) in [0, 1], not premultiplied; None when the file has none.
        bits: 8 or 16 bits a channel, in the file.
        grey: the file holds one colour channel, and `write` will write one.
        icc: the embedded colour profile that `rgb` is in; None means sRGB.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    bits: int = 8
    grey: bool = False
    icc: bytes | None = None


def list_pictures(folder: str | Path) -> list[Path]:
    """All picture files in a folder and its sub-folders, sorted by path; hidden files are left out.

    Raises:
        PictureError: no such folder, not a folder, or no picture in it.
    """
    folder = Path(folder)
    accepted = ", ".join(SUFFIXES)
    if not folder.exists():
        raise PictureError(f"{folder}: no such folder. Name a folder of pictures ({accepted}).")
    if not folder.is_dir():
        raise PictureError(f"{folder}: not a folder. Name the folder that holds the pictures.")
    found = [
        Path(where, name)
        for where, _, names in os.walk(folder, followlinks=True)
        for name in names
        if Path(name).suffix.lower() in _WRITE_OPTIONS and not name.startswith(".")
    ]
    if not found:
        raise PictureError(
            f"{folder}: no picture in this folder or its sub-folders. Accepted: {accepted}."
        )
    return sorted(found)


def read(path: str | Path) -> Picture:
    """Reads a picture file: orientation applied, 16 bit exact, CMYK brought to sRGB.

    Raises:
        PictureError: missing, not a picture, truncated or otherwise unreadable; names the file.
    """
    pixels, icc = _decode(Path(path))
    bits = 16 if pixels.dtype == np.uint16 else 8
    values = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / (2**bits - 1)
    bands = len(values)
    alpha = values[-1:].contiguous() if bands in (2, 4) else None
    grey = bands <= 2
    rgb = values[:1].repeat(3, 1, 1) if grey else values[:3].contiguous()
    return Picture(rgb, alpha, bits, grey, icc)


def read_rgb8(path: str | Path) -> Tensor:
    """Reads a picture file as plain 8-bit RGB, for training and evaluation: uint8 (3, h, w).

    Alpha is dropped, grey is repeated, 16 bit is rounded.

    Raises:
        PictureError: as for `read`.
    """
    pixels, _ = _decode(Path(path))
    if pixels.dtype == np.uint16:
        # uint16 / 257 rounded to nearest, without leaving integers
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    pixels = pixels[:, :, :1].repeat(3, 2) if pixels.shape[2] <= 2 else pixels[:, :, :3]
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def write(picture: Picture, path: str | Path) -> None:
    """Writes a picture in the format that the suffix names, whole or not at all.

    Values are clamped to [0, 1] and rounded. JPEG and BMP cannot hold alpha, and only PNG and
    TIFF hold 16 bit: what a format cannot hold is dropped with a warning.

    Raises:
        PictureError: unknown suffix, missing folder, or a write that fails; names the file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _WRITE_OPTIONS:
        raise PictureError(
            f"{path}: cannot write a picture of kind '{path.suffix}'. "
            f"Use one of {', '.join(SUFFIXES)}."
        )
    if path.is_dir():
        raise PictureError(f"{path}: is a folder. Name a file to write the picture to.")
    if not path.parent.is_dir():
        raise PictureError(f"{path}: the folder {path.parent} does not exist. Create it first.")
    pixels = _to_pixels(picture, path, suffix)
    # A reader never sees half a file: write beside the target, then rename over it.
    part = path.with_name(f".{path.stem[:64]}.{secrets.token_hex(4)}{suffix}")
    try:
        if suffix == ".bmp":
            Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(part)
        else:
            _to_vips(pixels, picture.icc).write_to_file(str(part), **_WRITE_OPTIONS[suffix])
        part.replace(path)
    except (pyvips.Error, OSError, ValueError) as error:
        raise PictureError(f"{path}: cannot write this picture ({_one_line(error)}).") from error
    finally:
        part.unlink(missing_ok=True)


def _one_line(error: Exception) -> str:
    """libvips appends the log of everything it tried: keep one line, without its own prefix."""
    text = error.detail if isinstance(error, pyvips.Error) else error
    return "; ".join(line.strip() for line in str(text).splitlines() if line.strip()) or "no detail"


def _decode(path: Path) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], bytes | None]:
    """Reads (h, w, bands), 1 to 4 bands (grey, grey+a, RGB, RGBA), and the profile."""
    if not path.exists():
        raise PictureError(f"{path}: no such file.")
    if path.is_dir():
        raise PictureError(f"{path}: is a folder, not a picture.")
    try:
        with path.open("rb") as file:
            start = file.read(2)
        if not start:
            raise PictureError(f"{path}: the file is empty (0 bytes).")
        return _decode_bmp(path) if start == b"BM" else _decode_vips(path)
    except (pyvips.Error, OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        raise PictureError(
            f"{path}: cannot read this picture ({_one_line(error)}). The file is damaged, cut off, "
            f"or not one of {', '.join(SUFFIXES)}."
        ) from error


def _decode_bmp(path: Path) -> tuple[NDArray[np.uint8], None]:
    with Image.open(path, formats=["BMP"]) as image:
        alpha = image.mode == "RGBA"
        mode = "L" if image.mode in ("1", "L") else "RGBA" if alpha else "RGB"
        pixels = np.asarray(image.convert(mode))
    return (pixels[:, :, None] if pixels.ndim == 2 else pixels), None


def _decode_vips(path: Path) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], bytes | None]:
    image = pyvips.Image.new_from_file(str(path), access="sequential", fail_on="error")
    if image.format not in ("uchar", "ushort"):
        raise ValueError(f"channels of type {image.format}; 8 or 16 bit whole numbers are needed")
    icc: bytes | None = None
    if image.get_typeof("icc-profile-data"):
        icc = bytes(image.get("icc-profile-data"))
    if image.get_typeof("orientation") and image.get("orientation") != 1:
        # Turning needs random access, and the flag must not survive into what is written.
        image = image.copy_memory().autorot()
    if image.interpretation == "cmyk":
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk")
        icc = None
    elif image.interpretation not in ("srgb", "rgb", "b-w", "rgb16", "grey16", "multiband"):
        image = image.colourspace("srgb")
    if image.bands > 4:
        raise ValueError(f"{image.bands} channels; at most 4 are understood")
    return image.numpy().reshape(image.height, image.width, image.bands), icc


def _to_pixels(picture: Picture, path: Path, suffix: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """(h, w, bands) in what the format can hold."""
    rgb = picture.rgb
    if rgb.ndim != 3 or len(rgb) != 3:
        raise PictureError(f"{path}: a picture is (3, h, w), got {tuple(rgb.shape)}.")
    bits = picture.bits
    if bits == 16 and suffix not in _SIXTEEN_BIT:
        _log.warning("%s: %s holds 8 bits a channel; 16 bit was rounded to it.", path, suffix)
        bits = 8
    alpha = picture.alpha
    if alpha is not None and suffix in _NO_ALPHA:
        _log.warning("%s: %s cannot hold transparency; written without it.", path, suffix)
        alpha = None
    _, h, w = rgb.shape
    bands = (1 if picture.grey else 3) + (alpha is not None)
    pixels = np.empty((h, w, bands), np.uint16 if bits == 16 else np.uint8)
    # A few rows at a time: a large picture in floating point takes more than all else.
    for top in range(0, h, _ROWS):
        rows = slice(top, top + _ROWS)
        parts = [_floats(rgb[:, rows])]
        if picture.grey:
            # Channels that started equal can part by rounding on their way through a network.
            parts = [parts[0].mean(0, keepdim=True)]
        if alpha is not None:
            parts.append(_floats(alpha[:, rows]))
        values = torch.cat(parts).clamp_(0, 1).mul_(2**bits - 1).round_()
        pixels[rows] = values.permute(1, 2, 0).numpy()
    return pixels


def _floats(values: Tensor) -> Tensor:
    """In [0, 1], on the CPU."""
    values = values.detach().cpu()
    if values.dtype in (torch.uint8, torch.uint16):
        return values.float() / torch.iinfo(values.dtype).max
    return values.float()


def _to_vips(pixels: NDArray[np.uint8] | NDArray[np.uint16], icc: bytes | None) -> pyvips.Image:
    wide = pixels.dtype == np.uint16
    names = ("grey16", "rgb16") if wide else ("b-w", "srgb")
    image = pyvips.Image.new_from_array(pixels, interpretation=names[pixels.shape[2] > 2])
    if icc is not None:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    return image

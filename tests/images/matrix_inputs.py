"""What the matrix test reads: a file of every kind, by other libraries, and its pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import png
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms
from tests.images.made_files import chunk

H, W = 9, 13
Array = NDArray[np.integer[Any]]
DPI = 254  # 10 pixels per mm
NOTE = b"MAKER\0" + bytes(range(256))


@dataclass(frozen=True)
class Meta:
    """What a file says about its pixels."""

    orientation: int | None = None
    icc: bytes | None = None
    exif: bool = False
    dpi: int | None = None


def content(bands: int, bits: int) -> Array:
    """Smooth, for lossy formats, and with no symmetry at all."""
    y, x = np.mgrid[0:H, 0:W]
    planes = [(3 * y + x) / 40, (y * x + 2 * x) / 130, 1 - (2 * y + 3 * x) / 55, 0.2 + y / 14]
    chosen = {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[bands]
    values = np.stack([planes[i] for i in chosen], -1).clip(0, 1) * (2**bits - 1)
    return np.rint(values).astype(np.uint16 if bits > 8 else np.uint8)


@cache
def profile(grey: bool) -> bytes:
    return (
        grey_profile()
        if grey
        else ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    )


def grey_profile(gamma: float = 2.2) -> bytes:
    """Made by hand: as little as the specification lets it hold."""
    white = struct.pack(">4s4xiii", b"XYZ ", 63190, 65536, 54061)
    text = struct.pack(">4s4x", b"text") + b"none\0\0\0\0"
    desc = struct.pack(">4s4xI", b"desc", 5) + b"grey\0" + bytes(78 + 1)
    curve = struct.pack(">4s4xIH", b"curv", 1, round(gamma * 256)) + b"\0\0"
    tags, at = [], 128 + 4 + 4 * 12
    for name, data in ((b"desc", desc), (b"wtpt", white), (b"kTRC", curve), (b"cprt", text)):
        tags.append((struct.pack(">4sII", name, at, len(data)), data))
        at += len(data)
    table = struct.pack(">I", 4) + b"".join(tag for tag, _ in tags)
    head = struct.pack(">I4sI4s4s4s", at, b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp")
    head = head.ljust(68, b"\0") + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + b"".join(data for _, data in tags)


def exif_of(meta: Meta) -> Image.Exif:
    exif = Image.Exif()
    if meta.orientation is not None:
        exif[0x0112] = meta.orientation
    if meta.exif:
        exif[0x010F] = "A maker"
        inner = exif.get_ifd(0x8769)
        inner[0xA002], inner[0xA003] = W, H
        inner[0x927C] = NOTE
        exif.get_ifd(0x8825)[2] = (52.0, 30.0, 1.5)
    return exif


def png_file(array: Array, meta: Meta, **options: Any) -> bytes:
    """By pypng, with chunks put in by hand."""
    bands = 1 if array.ndim == 2 else array.shape[2]
    if "palette" not in options:
        options |= {"greyscale": bands <= 2, "alpha": bands in (2, 4)}
        options.setdefault("bitdepth", 8 * array.itemsize)
    file = io.BytesIO()
    png.Writer(W, H, **options).write(file, array.reshape(H, -1).tolist())
    chunks = b""
    if meta.icc:
        chunks += chunk(b"iCCP", b"any\0\0" + zlib.compress(meta.icc))
    if meta.dpi:
        per_metre = round(meta.dpi / 0.0254)
        chunks += chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1))
    if len(exif_of(meta)):
        chunks += chunk(b"eXIf", exif_of(meta).tobytes().removeprefix(b"Exif\0\0"))
    return file.getvalue()[:33] + chunks + file.getvalue()[33:]


def tiff_file(array: Array, meta: Meta, **options: Any) -> bytes:
    """By tifffile; EXIF within TIFF has a test of its own."""
    bands = 1 if array.ndim == 2 else array.shape[2]
    options.setdefault("photometric", "rgb" if bands > 2 else "minisblack")
    if bands in (2, 4) and options["photometric"] != "separated":
        options["extrasamples"] = ["unassalpha"]
    tags = [] if meta.orientation is None else [(274, 3, 1, meta.orientation, True)]
    if meta.exif:
        tags.append((271, 2, 0, "A maker", True))
    if meta.dpi:
        options |= {"resolution": (meta.dpi, meta.dpi), "resolutionunit": "inch"}
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, extratags=tags, iccprofile=meta.icc, **options)
    return file.getvalue()


def pillow_file(array: Any, meta: Meta, into: str, **options: Any) -> bytes:
    image = Image.fromarray(array) if isinstance(array, np.ndarray) else array
    if into != "BMP":
        options |= {"exif": exif_of(meta), "icc_profile": meta.icc}
    if meta.dpi:
        options["dpi"] = (meta.dpi, meta.dpi)
    file = io.BytesIO()
    image.save(file, into, **options)
    return file.getvalue()


def palette(transparent: bool) -> list[tuple[int, ...]]:
    colours = [(i * 16, 255 - i * 9, (i * 7) % 64) for i in range(16)]
    return [(*c, 255 - i * 17) if transparent else c for i, c in enumerate(colours)]


INDEX = (content(1, 8)[..., 0] >> 4).astype(np.uint8)
CUT = content(3, 8)[2, 3]  # a colour that stands for transparency
HOLE = (content(3, 8) == CUT).all(-1)
HOLE16 = (content(3, 16) == content(3, 16)[2, 3]).all(-1)
BIT = content(1, 8)[..., 0] > 90
Input = tuple[str, Callable[[Meta], bytes], Array]


def plain(kind: str, make: Callable[..., bytes], bands: int, bits: int, **options: Any) -> Input:
    array = content(bands, bits)
    one = array[..., 0] if bands == 1 else array
    name = f"{kind}-{['grey', 'rgb'][bands > 2]}{'a' if bands in (2, 4) else ''}{bits}"
    return name, lambda meta: make(one, meta, **options), array


def lossy(kind: str, bands: int, **options: Any) -> Input:
    """What Pillow reads in the file, not what was meant, is what is expected."""
    name, make, _ = plain(kind.lower(), pillow_file, bands, 8, into=kind, **options)
    seen = np.asarray(Image.open(io.BytesIO(make(Meta())))).reshape(H, W, -1)
    return name, make, seen


def with_alpha(array: Array, hole: NDArray[np.bool_]) -> Array:
    top = np.iinfo(array.dtype).max
    return np.concatenate([array, np.where(hole, 0, top)[..., None].astype(array.dtype)], -1)


def inputs() -> list[Input]:
    rgb8, rgb16 = content(3, 8), content(3, 16)
    bits8 = (BIT * 255).astype(np.uint8)[..., None]
    pal, pal_alpha = (np.array(palette(t), np.uint8)[INDEX] for t in (False, True))
    two = (content(1, 8) >> 6).astype(np.uint8)
    paletted = Image.fromarray(INDEX)
    paletted.putpalette([v for c in palette(False) for v in c])
    found = [plain("png", png_file, n, bits) for n in (1, 2, 3, 4) for bits in (8, 16)]
    found += [plain("tiff", tiff_file, n, bits) for n in (1, 2, 3, 4) for bits in (8, 16)]
    cut16 = tuple(int(v) for v in rgb16[2, 3])
    more: list[Input] = [
        ("png-palette", lambda m: png_file(INDEX, m, palette=palette(False), bitdepth=4), pal),
        (
            "png-paletteA",
            lambda m: png_file(INDEX, m, palette=palette(True), bitdepth=4),
            pal_alpha,
        ),
        ("png-1bit", lambda m: png_file(BIT.astype(np.uint8), m, bitdepth=1), bits8),
        ("png-2bit", lambda m: png_file(two[..., 0], m, bitdepth=2), two * 85),
        (
            "png-rgb8-tRNS",
            lambda m: png_file(rgb8, m, transparent=tuple(map(int, CUT))),
            with_alpha(rgb8, HOLE),
        ),
        (
            "png-rgb16-tRNS",
            lambda m: png_file(rgb16, m, transparent=cut16),
            with_alpha(rgb16, HOLE16),
        ),
        ("tiff-1bit", lambda m: tiff_file(BIT, m), bits8),
        ("tiff-deflated", lambda m: tiff_file(rgb16, m, compression="zlib", predictor=True), rgb16),
        ("tiff-tiles", lambda m: tiff_file(rgb8, m, tile=(16, 16)), rgb8),
        ("bmp-palette", lambda m: pillow_file(paletted, m, "BMP"), pal),
        ("bmp-1bit", lambda m: pillow_file(Image.fromarray(BIT), m, "BMP"), bits8),
        plain("bmp", pillow_file, 1, 8, into="BMP"),
        plain("bmp", pillow_file, 3, 8, into="BMP"),
        plain("webp", pillow_file, 3, 8, into="WEBP", lossless=True),
        plain("webp", pillow_file, 4, 8, into="WEBP", lossless=True),
        lossy("JPEG", 1, quality=95),
        lossy("JPEG", 3, quality=95, subsampling=0),
        lossy("AVIF", 3, quality=95, subsampling="4:4:4"),
        lossy("AVIF", 4, quality=95, subsampling="4:4:4"),
    ]
    return found + more


INPUTS = inputs()

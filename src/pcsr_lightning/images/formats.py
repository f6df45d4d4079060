"""The picture formats: their names, how they are recognised, and what each can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pcsr_lightning.errors import PictureError


@dataclass(frozen=True, eq=False)
class Format:
    """What a format can hold.

    Attributes:
        name: as users write it.
        suffixes: of file names, the usual one first.
        max_side: the longest side, in pixels, that the format or its encoder takes.
        max_bits: bits a channel.
        alpha: holds transparency.
        grey: holds a picture of one colour channel.
        holds: those of `Metadata`'s attributes that it holds, the resolution apart.
        density: libvips writes pixels per mm into it, not only into EXIF.
        quality: what is used where none is asked for; None for formats that lose nothing.
        options: of libvips' saver.
    """

    name: str
    suffixes: tuple[str, ...]
    max_side: int
    max_bits: int = 8
    alpha: bool = True
    grey: bool = True
    holds: frozenset[str] = frozenset({"icc", "exif", "xmp"})
    density: bool = True
    quality: int | None = None
    options: Mapping[str, object] = field(default_factory=dict)


PNG = Format(
    "PNG",
    (".png",),
    1_000_000,
    max_bits=16,
    holds=frozenset({"icc", "exif", "xmp", "png_chunks"}),
)
# 65,500, not the format's 65,535: more is refused by libjpeg.
JPEG = Format(
    "JPEG",
    (".jpg", ".jpeg", ".jpe", ".jfif"),
    65_500,
    alpha=False,
    holds=frozenset({"icc", "exif", "xmp", "iptc"}),
    density=False,
    quality=95,
    options={"subsample_mode": "off"},
)
WEBP = Format(
    "WebP",
    (".webp",),
    16_383,
    grey=False,
    density=False,
    quality=95,
    options={"smart_subsample": True},
)
TIFF = Format(
    "TIFF",
    (".tif", ".tiff"),
    1_000_000,
    max_bits=16,
    holds=frozenset({"icc", "exif", "xmp", "iptc"}),
    options={"compression": "deflate", "predictor": "horizontal"},
)
BMP = Format("BMP", (".bmp",), 1_000_000, alpha=False, holds=frozenset())
# 10 bits: 12 are in a profile of the format that many viewers lack.
AVIF = Format(
    "AVIF",
    (".avif",),
    16_384,
    max_bits=10,
    grey=False,
    density=False,
    quality=90,
    options={"compression": "av1", "subsample_mode": "off"},
)
FORMATS = (PNG, JPEG, WEBP, BMP, TIFF, AVIF)
GIF = Format("GIF", (".gif",), 65_535)
HEIC = Format("HEIC", (".heic", ".heif"), 16_384, max_bits=12)
"""Files of these two kinds are read, but not written."""
SUFFIXES = tuple(suffix for format_ in FORMATS for suffix in format_.suffixes)
READ_FORMATS = (*FORMATS, GIF, HEIC)
READ_SUFFIXES = (
    # .mpo: a JPEG file with further pictures behind the first
    *(suffix for format_ in READ_FORMATS for suffix in format_.suffixes),
    ".mpo",
)
NAMES = ", ".join(format_.name for format_ in READ_FORMATS)
_WRITTEN_INSTEAD = {".mpo": ".jpg"}
_BY_SUFFIX = {suffix: format_ for format_ in FORMATS for suffix in format_.suffixes}
_BMP_MOST_BYTES = 2**32 - 2**16  # its header counts bytes in 32 bits

UNREAD = {
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf"), "JPEG 2000"),
    **{".jxl": "JPEG XL", ".psd": "Photoshop", ".svg": "vector graphics", ".exr": "OpenEXR"},
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"), "raw"),
}
"""Kinds of pictures that are not read, by their usual suffixes."""
RAW = "a {} raw file; develop it, and save it as TIFF or PNG"
"""What is said of a camera's file, with the name of its kind."""
# Formats that are recognised in order to be refused by name.
_RAW_STARTS = (
    *((b"IIRO", "ORF"), (b"IIRS", "ORF"), (b"MMOR", "ORF"), (b"IIU\0", "RW2")),
    *((b"FUJIFILMCCD-RAW", "RAF"), (b"FOVb", "X3F"), (b"\0MRM", "MRW")),
    (b"II\x1a\0\0\0HEAPCCDR", "CRW"),
)
_OTHERS = (
    *((start, RAW.format(kind)) for start, kind in _RAW_STARTS),
    (b"%PDF", "a PDF file"),
    (b"8BPS", "a Photoshop file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 file"),
    (b"<svg", "an SVG file"),
    (b"<?xml", "an XML file"),
    (b"PK\3\4", "a ZIP file"),
    (b"\x1f\x8b", "a gzip file"),
)
HEAD_BYTES = 64
FALLBACK = ".png"
"""What a picture becomes whose own format can be read but not written."""


class KindNotReadError(ValueError):
    """A file of a known kind that is not read; the message says which."""


def recognise(head: bytes) -> Format:
    """The format of a file from its first `HEAD_BYTES` bytes; its name does not count.

    Raises:
        KindNotReadError: none of the formats that are read; says what it is.
        ValueError: it is unknown what it is.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if head[:4] == b"II*\0" and head[8:10] == b"CR":
        raise KindNotReadError(RAW.format("CR2"))
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return TIFF
    if head[:2] == b"BM":
        return BMP
    if head[4:8] == b"ftyp":
        brands = {head[at : at + 4] for at in range(8, len(head) - 3, 4)}
        if brands & {b"avif", b"avis"}:
            return AVIF
        if b"crx " in brands:
            raise KindNotReadError(RAW.format("CR3"))
        if brands & {b"heic", b"heix", b"heim", b"heis"}:
            return HEIC
        raise KindNotReadError("a video, or a HEIF picture that is neither AVIF nor HEIC")
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return GIF
    for start, what in _OTHERS:
        if head.startswith(start):
            raise KindNotReadError(what)
    raise ValueError("not a picture, or of an unknown kind")


def is_picture(path: Path) -> bool:
    """Whether a file is one that is read: by its suffix, or by its content if it has none."""
    return own_suffix(path) is not None


def own_suffix(path: Path) -> str | None:
    """The suffix that a result in the picture's own format has, or in the nearest that is written.

    It keeps its spelling; ``None`` if the file is no picture by its suffix, or, where it has none,
    by its content.
    """
    suffix = path.suffix
    if not suffix:
        try:
            if not path.is_file():
                return None
            with path.open("rb") as file:
                suffix = recognise(file.read(HEAD_BYTES)).suffixes[0]
        except (OSError, ValueError):
            return None
    lower = suffix.lower()
    if lower in SUFFIXES:
        return suffix
    return _WRITTEN_INSTEAD.get(lower, FALLBACK) if lower in READ_SUFFIXES else None


def format_named(name: str, where: str = "") -> Format:
    """The format called `name`: a suffix or a format's name, such as ``.jpg``, ``jpg``, ``JPEG``.

    Args:
        name: the name.
        where: begins the message of an error, such as the path followed by a colon.

    Raises:
        PictureError: no such format.
    """
    found = _BY_SUFFIX.get(f".{name.lower().removeprefix('.')}")
    if found is None:
        raise PictureError(
            f"{where}cannot write a picture of kind '{name}'. Use one of {', '.join(SUFFIXES)}."
        )
    return found


def format_for(path: Path, name: str | None = None) -> Format:
    """The format to write `path` in: the one named, or the one of its suffix.

    Raises:
        PictureError: no such format.
    """
    return format_named(path.suffix if name is None else name, f"{path}: ")


def check_size(format_: Format, size: tuple[int, int], where: str) -> None:
    """Refuses a picture larger than a format can hold.

    Args:
        format_: the format.
        size: (h, w) in pixels.
        where: begins the message.

    Raises:
        PictureError: too large; names the limit and the formats that would do.
    """
    h, w = size
    if min(h, w) < 1:
        raise PictureError(f"{where}: a picture of {w} x {h} pixels has nothing to write.")
    larger = ", ".join(f.name for f in FORMATS if f.max_side > max(h, w) and f is not format_)
    advice = f"Use {larger}." if larger else "Use a smaller scale."
    if max(h, w) > format_.max_side:
        raise PictureError(
            f"{where}: {format_.name} holds at most {format_.max_side:,} pixels a side, and this "
            f"picture would have {w:,} x {h:,}. {advice}"
        )
    if format_ is BMP and h * (3 * w + 3) > _BMP_MOST_BYTES:
        raise PictureError(
            f"{where}: BMP holds at most 4 GB, which {w:,} x {h:,} pixels exceed. Use PNG or TIFF."
        )


def check_writable(path_or_format: str | Path, size: tuple[int, int]) -> None:
    """Refuses, before any work is done, what could not be written at the end.

    Args:
        path_or_format: the file to be written, or a format's name or suffix.
        size: (h, w) in pixels of the picture to be written.

    Raises:
        PictureError: unknown format, or a picture larger than the format can hold.
    """
    name = Path(path_or_format).suffix or str(path_or_format)
    format_ = format_named(name, f"{path_or_format}: ")
    check_size(format_, size, str(path_or_format))

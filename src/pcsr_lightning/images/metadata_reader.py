"""The metadata of image files: what libvips reads, and what it does not, read before it opens them.

Pillow lists what of a JPEG file nothing carries; `tiff_tags` and `png_chunks` read theirs.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import BinaryIO

import pyvips
from PIL.JpegImagePlugin import JpegImageFile

from pcsr_lightning.images import photoshop
from pcsr_lightning.images.condition import quality_of
from pcsr_lightning.images.formats import AVIF, JPEG, PNG, TIFF, Format
from pcsr_lightning.images.growth import SIDEWAYS, Growth
from pcsr_lightning.images.metadata import Metadata
from pcsr_lightning.images.pillow import pillow_errors
from pcsr_lightning.images.png_chunks import SRGB_CODES, Chunk, read_chunks
from pcsr_lightning.images.tiff_pages import find_pages
from pcsr_lightning.images.tiff_tags import ICC, PHOTOSHOP, XMP, TiffTags, header

_EXIF_MARK = b"Exif\0\0"
_XMP_MARK, _MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_GAIN_MAPS = (b"urn:iso:std:iso:ts:21496:-1\0", b"hdrgm:Version")
# Carried by libvips, or of no use beyond the file they are in.
_JPEG_SEGMENTS = (
    *(b"JFIF", b"JFXX", b"Adobe", b"Ducky"),
    *(_EXIF_MARK, _XMP_MARK, b"ICC_PROFILE\0", photoshop.MARK),
)
_XMP_NAMES_WHAT_FOLLOWS = (b"MotionPhoto", b"MicroVideo", b"Directory")
_TAIL, _JPEG_END, _FILLING = 64, b"\xff\xd9", b"\0 \r\n"
_JPEG_HEAD = 2**24  # bytes of a JPEG in which metadata is looked for
_AVIF_HEAD = 2**20
_BESIDE_AVIF = (
    (rb"(?s)infe.{8}tmap|urn:com:[a-z0-9:]+:hdrgainmap", "gain map for brighter screens"),
    (rb"auxid:2\0|auxiliary:depth\0", "depth map"),
)


@dataclass(frozen=True)
class Inspection:
    """What is read from a file before libvips opens it, because libvips does not report it.

    Attributes:
        metadata: a part of it.
        has_profile: of a PNG file, see `PngChunks`.
        animated: the file holds more than one frame.
        claims: the (h, w) that an AVIF file claims: libvips complains of large ones on stderr.
        orientation: of a TIFF file, EXIF's number.
        page: of a TIFF file, libvips' options for the page to open.
        alpha_is_unsure: a TIFF file does not say what the channel beyond its colours is.
        premultiplied: an AVIF file's colours are multiplied by its alpha, which libvips ignores.
        problem: why the picture must be refused, or None.
    """

    metadata: Metadata = field(default_factory=Metadata)
    has_profile: bool = False
    animated: bool = False
    claims: tuple[int, int] | None = None
    orientation: int | None = None
    page: Mapping[str, int] = field(default_factory=dict)
    alpha_is_unsure: bool = False
    premultiplied: bool = False
    problem: str | None = None


def inspect_file(file: BinaryIO, format_: Format) -> Inspection:
    """What libvips does not report of a file.

    Raises:
        OSError: the file cannot be read.
    """
    found: dict[Format, Callable[[BinaryIO], Inspection]]
    found = {PNG: _inspect_png, JPEG: _inspect_jpeg, TIFF: _inspect_tiff, AVIF: _inspect_avif}
    return found[format_](file) if format_ in found else Inspection()


def _inspect_png(file: BinaryIO) -> Inspection:
    chunks = read_chunks(file)
    metadata = Metadata(
        exif=chunks.exif,
        xmp=chunks.xmp,
        resolution=chunks.resolution,
        density=chunks.density,
        png_chunks=tuple(chunks.kept),
        left_out=tuple(dict.fromkeys(chunks.damaged)),
    )
    return Inspection(metadata, chunks.has_profile, chunks.animated)


def _inspect_jpeg(file: BinaryIO) -> Inspection:
    file.seek(0)
    try:
        with pillow_errors():
            image = JpegImageFile(BytesIO(file.read(_JPEG_HEAD)))
            segments, info, tables = image.applist, image.info, image.quantization
    except (ValueError, OSError) as error:
        return Inspection(Metadata(left_out=(f"segments that cannot be read ({error})",)))
    # Resources too long for a segment go on in the next.
    mark = photoshop.MARK
    iptc = b"".join(data[len(mark) :] for _, data in segments if data.startswith(mark))
    names = [name for kind, data in segments if (name := _lost_segment(kind, data))]
    known = any(name in data for _, data in segments for name in _XMP_NAMES_WHAT_FOLLOWS)
    if not names and not known and _goes_on(file):
        names = ["what follows the picture in its file"]
    x, y = info.get("jfif_density", (1, 1))
    density = (x, y) if info.get("jfif_unit") == 0 and 0 < min(x, y) < max(x, y) else None
    left_out = tuple(dict.fromkeys(names))
    quality = quality_of(tables) if tables else None
    found = Metadata(iptc=iptc or None, density=density, left_out=left_out, jpeg_quality=quality)
    return Inspection(found)


def _goes_on(file: BinaryIO) -> bool:
    """Whether something other than a picture is at the end of a JPEG file."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
    tail = file.read(_TAIL).rstrip(_FILLING)
    return tail != b"" and not tail.endswith(_JPEG_END)


def _lost_segment(kind: str, data: bytes) -> str:
    """The name of a segment that is not carried, or an empty one."""
    if kind == "COM":
        return "comment" if data.strip(b"\0 \n") else ""
    if any(mark in data for mark in _GAIN_MAPS):
        return "gain map for brighter screens"
    if data.startswith(_MORE_XMP):
        return "the part of XMP beyond one segment"
    if data.startswith(b"MPF\0"):
        return "further pictures"
    if data.startswith(_JPEG_SEGMENTS):
        return ""
    mark = data[:20].split(b"\0")[0].decode("latin-1")
    return f"{kind} '{mark}'"


def _inspect_tiff(file: BinaryIO) -> Inspection:
    try:
        pages = find_pages(file, header(file)[0])
        tags = TiffTags(file, pages)
    except ValueError:  # a big-endian BigTIFF, or one that libvips refuses as well
        return Inspection(Metadata(left_out=("tags that cannot be read",)))
    exif, left_out = tags.exif()
    found = Metadata(
        exif=exif,
        icc=tags.block(ICC),
        xmp=tags.block(XMP),
        iptc=tags.block(PHOTOSHOP) or (tags.iptc and photoshop.as_resource(tags.iptc)),
        resolution=tags.resolution,
        density=tags.density,
        left_out=tuple(left_out),
    )
    return Inspection(
        found,
        problem=tags.problem,
        animated=pages.several,
        orientation=tags.orientation,
        page={"page": pages.picture.page, "subifd": pages.picture.sub_ifd},
        alpha_is_unsure=tags.alpha_is_unsure,
    )


def _inspect_avif(file: BinaryIO) -> Inspection:
    """Sizes, colour codes, whether alpha is premultiplied, and what is beside the picture.

    Neither libvips nor Pillow says it. By their boxes' sizes and names (ISO/IEC 14496-12 and
    23008-12).
    """
    file.seek(0)
    head = file.read(_AVIF_HEAD)
    sizes = [
        struct.unpack(">II", size) for size in re.findall(rb"(?s)\0\0\0\x14ispe\0{4}(.{8})", head)
    ]
    claims = (max(h for _, h in sizes), max(w for w, _ in sizes)) if sizes else None
    chunks: tuple[Chunk, ...] = ()
    if (codes := re.search(rb"(?s)\0\0\0\x13colrnclx(.{4})", head)) is not None:
        primaries, transfer = struct.unpack(">HH", codes[1])
        specified = 2 not in (primaries, transfer) and max(primaries, transfer) < 256
        if specified and (primaries, transfer) != SRGB_CODES:
            # Whatever range the file has, decoding brings values to the full one.
            chunks = ((b"cICP", bytes([primaries, transfer, 0, 1])),)
    left_out = tuple(what for mark, what in _BESIDE_AVIF if re.search(mark, head))
    return Inspection(
        Metadata(png_chunks=chunks, left_out=left_out),
        animated=head[8:12] == b"avis",
        claims=claims,
        premultiplied=re.search(rb"\0\0\0[\x0e\x12]prem", head) is not None,
    )


def read_metadata(image: pyvips.Image, found: Inspection) -> tuple[Metadata, int]:
    """The metadata of an open image, and EXIF's number for how it is to be turned.

    Args:
        image: as libvips loads it; not turned, and its colours not converted.
        found: in the same file.
    """
    known = found.metadata
    exif = known.exif or _blob(image, "exif-data") or _exif_in_text(image)
    exif = None if exif is None else exif.removeprefix(_EXIF_MARK)
    orientation, resolution = 1, known.resolution
    if exif is not None:
        try:
            tags = TiffTags(BytesIO(exif))
            orientation, resolution = tags.orientation, resolution or tags.resolution
        except (ValueError, OSError):  # said when it is written
            pass
    if found.orientation is not None:
        orientation = found.orientation
    elif image.get_typeof("orientation"):
        orientation = image.get("orientation")
    if image.get_typeof("resolution-unit") and resolution is None:
        resolution = image.xres, image.yres
    density = known.density
    if orientation in SIDEWAYS:
        resolution = None if resolution is None else resolution[::-1]
        density = None if density is None else density[::-1]
    icc, left_out = _blob(image, "icc-profile-data") or known.icc, known.left_out
    if (icc is None and found.has_profile) or (icc is not None and not _fits(icc, image)):
        icc, left_out = None, ("a colour profile that does not fit the pixels", *left_out)
    iptc = _blob(image, "photoshop-data") or known.iptc
    xmp, growth = _blob(image, "xmp-data") or known.xmp, Growth(turned=orientation)
    read = replace(known, icc=icc, exif=exif, xmp=xmp, iptc=iptc, growth=growth)
    return replace(read, resolution=resolution, density=density, left_out=left_out), orientation


def _fits(icc: bytes, image: pyvips.Image) -> bool:
    """Whether a profile is one for the image's kind of channels."""
    if image.interpretation == "cmyk":
        return True  # used up when the inks are brought to sRGB
    space = b"GRAY" if image.bands <= 2 else b"RGB "
    return len(icc) >= 128 and icc[16:20] == space and icc[36:40] == b"acsp"


def _exif_in_text(image: pyvips.Image) -> bytes | None:
    """The EXIF block that older versions of ImageMagick write as a text of a PNG file."""
    for name in image.get_fields():
        if name.endswith(("-Raw profile type exif", "-Raw profile type APP1")):
            _, _, _, *digits = str(image.get(name)).split("\n", 3)
            try:
                return bytes.fromhex("".join(digits))
            except ValueError:
                return b""  # damaged, which is said when it is written
    return None


def _blob(image: pyvips.Image, name: str) -> bytes | None:
    return bytes(image.get(name)) if image.get_typeof(name) else None

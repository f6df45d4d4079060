"""Metadata of image files (colour profile, EXIF, XMP, IPTC, resolution), and how it is written.

libvips writes most of it; what it loses is in `tiff_tags` and `png_chunks`. What a file does not
hold of the picture's metadata is named. `metadata_reader` reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from io import BytesIO
from typing import Any, BinaryIO

import pyvips

from pcsr_lightning.images import photoshop, png_chunks, tiff_tags, xmp
from pcsr_lightning.images.formats import JPEG, PNG, TIFF, Format
from pcsr_lightning.images.growth import AS_IT_WAS, Growth, as_fraction
from pcsr_lightning.images.png_chunks import Chunk, describe_chunks
from pcsr_lightning.images.tiff_tags import TiffTags

_JPEG_MOST_XMP, _JPEG_MOST_IPTC = 60_000, 65_500  # libvips silently leaves more out
_FINEST = 1e5  # pixels per mm; libvips writes thousandths of dots per inch into 32 bits
_UNKNOWN = 72 / 25.4  # pixels per mm: what EXIF wants where the resolution is unknown
_KEEP_ALL, _KEEP_EXIF = 31, 1  # libvips' flags
_STALE = {
    *("jpeg-thumbnail-data", "exif-ifd2-PixelXDimension", "exif-ifd2-PixelYDimension"),
    *("exif-ifd0-ImageWidth", "exif-ifd0-ImageLength"),
    *("exif-ifd4-RelatedImageWidth", "exif-ifd4-RelatedImageLength"),
}
_FOCAL_PLANE = ("exif-ifd2-FocalPlaneXResolution", "exif-ifd2-FocalPlaneYResolution")
_PLACES = {"exif-ifd2-SubjectArea", "exif-ifd2-SubjectLocation"}  # in pixels
_MOST_SHORT = 65_535  # libvips keeps a value's type
_FRACTION = re.compile(r"[0-9]+/[1-9][0-9]* ")
_DAMAGED, _DAMAGED_XMP = "EXIF (damaged)", "XMP (damaged)"
_CALIBRATION, _ASPECT = "a resolution in ImageJ's unit", "the aspect ratio of pixels"
_NO_EXIF = b"II*\0\x08\0\0\0\0\0\0\0\0\0"
_NAMES = {"icc": "colour profile", "exif": "EXIF", "xmp": "XMP", "iptc": "IPTC"}


@dataclass(frozen=True)
class Metadata:
    """What an image file says beside its pixels.

    Attributes:
        icc: the embedded colour profile that the pixels are in; None means sRGB.
        exif: the EXIF block as it was in the file, from its TIFF header on (no "Exif" mark before
            it). In a result its orientation, sizes and resolution are up to date, and its thumbnail
            is gone.
        xmp: the XMP packet as it was in the file; brought up to date likewise, and what it says of
            a video, gain map or depth map beside the old picture is gone.
        iptc: IPTC records and what else Photoshop keeps beside them, as its image resources.
        resolution: pixels per mm, across and down; None when the file names none.
        density: pixels across and down in a unit that the file does not name, where that says how
            wide pixels are, or ImageJ's description names the unit.
        growth: of the pixels since ``exif`` and ``xmp`` were written.
        png_chunks: a PNG file's texts and colour chunks; the colour codes of AVIF, likewise.
        left_out: names of what else the file holds, which no result will.
        jpeg_quality: of a JPEG file, 1 to 100 on libjpeg's scale.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    resolution: tuple[float, float] | None = None
    density: tuple[float, float] | None = None
    growth: Growth = AS_IT_WAS
    png_chunks: tuple[Chunk, ...] = ()
    left_out: tuple[str, ...] = ()
    jpeg_quality: int | None = None

    def resized(self, across: float, down: float) -> Metadata:
        """Those of the same picture with so many pixels for each one."""

        def finer(density: tuple[float, float] | None) -> tuple[float, float] | None:
            return None if density is None else (density[0] * across, density[1] * down)

        growth = self.growth.resized(across, down)
        resolution, density = finer(self.resolution), finer(self.density)
        return replace(self, resolution=resolution, density=density, growth=growth)


def select_metadata(metadata: Metadata, format_: Format) -> tuple[Metadata, list[str]]:
    """What a format holds of a picture's metadata, and names of what it does not.

    Args:
        metadata: of the picture.
        format_: to write in.
    """
    lost = {name for name in _NAMES if getattr(metadata, name) is not None} - format_.holds
    too_large = set[str]()
    if format_ is JPEG:
        most = {"xmp": _JPEG_MOST_XMP, "iptc": _JPEG_MOST_IPTC}
        too_large = {n for n, size in most.items() if len(getattr(metadata, n) or b"") > size}
    names = [_NAMES[n] + " (too large)" * (n in too_large) for n in _NAMES if n in lost | too_large]
    dropped: dict[str, Any] = dict.fromkeys(lost | too_large)
    kept = replace(metadata, **dropped)
    if kept.exif is not None:
        exif_names = _lost_of_exif(kept.exif, kept.growth, format_)
        names += exif_names
        kept = replace(kept, exif=None) if exif_names == [_DAMAGED] else kept
    if kept.xmp is not None:
        try:
            packet, stale = xmp.remove_stale(kept.xmp, kept.growth)
        except ValueError:
            packet, stale = None, [_DAMAGED_XMP]
        names += stale
        kept = replace(kept, xmp=packet)
    if kept.iptc is not None:
        resources, stale = photoshop.brought_up_to_date(kept.iptc, kept.resolution)
        names += stale
        kept = replace(kept, iptc=resources)
    if kept.density is not None and format_ is not TIFF:
        square = kept.density[0] == kept.density[1]
        names += [_CALIBRATION] if square else [] if format_ is PNG else [_ASPECT]
    if "png_chunks" not in format_.holds:
        names += describe_chunks(metadata.png_chunks, kept.icc is not None)
        kept = replace(kept, png_chunks=())
    if metadata.resolution is not None and max(metadata.resolution) > _FINEST:
        names.append("a resolution of {:.3g} x {:.3g} pixels per mm".format(*metadata.resolution))
        kept = replace(kept, resolution=None)
    return kept, list(dict.fromkeys([*names, *metadata.left_out]))


def _lost_of_exif(exif: bytes, growth: Growth, format_: Format) -> list[str]:
    """Names of the tags that will be missing, found out by having libvips write the others."""
    try:
        tags = TiffTags(BytesIO(exif))
        if not tags.first:
            return [_DAMAGED]
        if format_ is TIFF:
            return tags.exif(growth)[1]
        image = pyvips.Image.black(1, 1).copy()
        _set_exif(image, exif, growth)
        written = pyvips.Image.pngload_buffer(image.pngsave_buffer(keep=_KEEP_EXIF))
        kept = TiffTags(BytesIO(written.get("exif-data"))).tags()
    except (pyvips.Error, ValueError, OSError):
        return [_DAMAGED]
    return tags.names(tags.tags() - kept)


def set_metadata(
    image: pyvips.Image, metadata: Metadata, format_: Format
) -> tuple[pyvips.Image, int]:
    """Gives an image the fields that libvips' saver of a format writes.

    Args:
        image: without metadata.
        metadata: that the format holds, see :func:`select_metadata`.
        format_: any but BMP.

    Returns:
        The image, and the flags for the saver's `keep`.
    """
    image = image.copy()
    if metadata.exif is not None and format_ is not TIFF:
        _set_exif(image, metadata.exif, metadata.growth)
    across, down = metadata.resolution or (_UNKNOWN, _UNKNOWN)
    if format_ is PNG:  # whole pixels per metre, to which libvips rounds down
        across, down = (round(r * 1000) / 1000 + 1e-6 for r in (across, down))
    image = image.copy(xres=across, yres=down)
    image.set_type(pyvips.GValue.gstr_type, "resolution-unit", "in")
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    fields = {"icc-profile-data": metadata.icc}
    if metadata.xmp is not None:
        size, media_type = (image.height, image.width), f"image/{format_.name.lower()}"
        fields["xmp-data"] = xmp.renew(metadata.xmp, metadata.growth, size, media_type)
    if metadata.iptc is not None and format_ is TIFF:
        fields["photoshop-data"] = metadata.iptc
    elif metadata.iptc is not None:
        fields["iptc-data"] = photoshop.MARK + metadata.iptc
    for name, data in fields.items():
        if data is not None:
            image.set_type(pyvips.GValue.blob_type, name, data)
    in_exif = metadata.resolution is not None and not format_.density
    with_exif = metadata.exif is not None or in_exif
    return image, _KEEP_ALL if with_exif else _KEEP_ALL - _KEEP_EXIF


def complete_file(file: BinaryIO, metadata: Metadata, format_: Format) -> None:
    """Puts what libvips does not write into the finished file.

    Raises:
        OSError: the file cannot be written.
    """
    if format_ is PNG:
        if metadata.resolution is None:
            png_chunks.write_aspect(file, metadata.density)
        png_chunks.insert_chunks(file, metadata.png_chunks)
    if format_ is TIFF:
        if metadata.resolution is None:
            tiff_tags.forget_unit(file)
        records = None if metadata.iptc is None else photoshop.iptc_records(metadata.iptc)
        density = metadata.density if metadata.resolution is None else None
        if metadata.exif is not None or records is not None or density is not None:
            tags = TiffTags(BytesIO(metadata.exif or _NO_EXIF))
            tags.append_to(file, records, density, metadata.growth)


def _set_exif(image: pyvips.Image, exif: bytes, growth: Growth) -> None:
    """Sets EXIF without thumbnail and sizes; libvips writes new sizes, resolution and orientation.

    What is set before is overwritten from the block.
    """
    image.set_type(pyvips.GValue.blob_type, "exif-data", exif)
    for name in image.get_fields():
        if name in _STALE or name.startswith("exif-ifd1-"):
            image.remove(name)
    for name in _PLACES & set(image.get_fields()):
        numbers = re.findall(r"\d+", str(image.get(name)).partition(" (")[0])
        place = growth.place([int(number) for number in numbers])
        if place is None or max(place) > _MOST_SHORT:
            image.remove(name)
        else:
            image.set_type(pyvips.GValue.gstr_type, name, " ".join(map(str, place)))
    texts = [str(image.get(name)) for name in _FOCAL_PLANE if image.get_typeof(name)]
    if len(texts) == 2 and all(_FRACTION.match(text) for text in texts):
        x, y = (float(Fraction(text.partition(" ")[0])) for text in texts)
        for name, value in zip(_FOCAL_PLANE, growth.density(x, y), strict=True):
            text = as_fraction(value)
            image.set_type(pyvips.GValue.gstr_type, name, text)

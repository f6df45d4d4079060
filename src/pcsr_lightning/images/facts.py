"""What a picture file says beside its pixels, on its way into a file; what gets lost is said."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import BinaryIO

import pyvips

from pcsr_lightning.images import exif as exif_blocks
from pcsr_lightning.images import exif_types, tiff_tags
from pcsr_lightning.images.containers import JPEG_MOST_XMP, MOST_EXIF, put_notes
from pcsr_lightning.images.formats import JPEG, TIFF, Format
from pcsr_lightning.images.heif import BoxError
from pcsr_lightning.images.notes import Notes
from pcsr_lightning.images.picture import Picture
from pcsr_lightning.images.tags import TagError

_log = logging.getLogger(__name__)
_FINEST = 1e6  # pixels per mm, that libvips takes


def with_writable_resolution(picture: Picture, name: str) -> Picture:
    """The picture, without a resolution that is too fine to be written; that is said."""
    if picture.resolution is None or max(picture.resolution) <= _FINEST:
        return picture
    across, down = picture.resolution
    _log.warning(
        "%s: a resolution of %.3g x %.3g pixels per mm cannot be written; written without it.",
        name,
        across,
        down,
    )
    return replace(picture, resolution=None)


def exif_for(picture: Picture, format_: Format, name: str) -> bytes | None:
    """The EXIF block to write, or None."""
    size = (picture.rgb.shape[1], picture.rgb.shape[2])
    in_exif = not format_.density
    try:
        exif = exif_blocks.up_to_date(picture.exif, size, picture.resolution, in_exif)
        if exif is None or format_ is TIFF or len(exif) <= MOST_EXIF:
            return exif
        problem = "is too large"
    except TagError as error:
        problem = f"is damaged ({error})"
    _log.warning("%s: its EXIF block %s; written without it.", name, problem)
    return exif_blocks.up_to_date(None, size, picture.resolution, in_exif)


def notes_for(picture: Picture, format_: Format, name: str) -> Notes:
    """Captions and colour codes to write; what the format cannot hold of them is said."""
    for what in picture.notes.lost(format_.notes, picture.icc is not None):
        _log.warning("%s: %s holds no %s; written without it.", name, format_.name, what)
    brought_to_srgb = _is_grey(picture.icc) and not format_.grey
    return replace(picture.notes, cicp=None) if brought_to_srgb else picture.notes


def with_facts(picture: Picture, image: pyvips.Image, format_: Format, name: str) -> pyvips.Image:
    """libvips' picture, with profile, XMP and resolution."""
    wide = image.format == "ushort"
    icc, xmp = picture.icc, picture.xmp
    if icc is not None:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
        if _is_grey(icc) and not format_.grey:
            image = image.icc_transform("srgb", embedded=True, depth=16 if wide else 8)
            image = image.copy()
            image.remove("icc-profile-data")
            _log.warning("%s: %s holds no profile for grey; brought to sRGB.", name, format_.name)
    if xmp is not None and format_ is JPEG and len(xmp) > JPEG_MOST_XMP:
        _log.warning("%s: its XMP is too large for a JPEG; written without it.", name)
    elif xmp is not None:
        upright = exif_blocks.upright_xmp(xmp, (picture.rgb.shape[1], picture.rgb.shape[2]))
        image.set_type(pyvips.GValue.blob_type, "xmp-data", upright)
    if picture.resolution is not None:
        across, down = picture.resolution
        image = image.copy(xres=across, yres=down)
        image.set_type(pyvips.GValue.gstr_type, "resolution-unit", "in")
    return image


def put_rest(file: BinaryIO, format_: Format, exif: bytes | None, notes: Notes, name: str) -> None:
    """Puts what libvips did not write into the finished file: notes, and EXIF into TIFF.

    Raises:
        OSError: the file cannot be written.
    """
    if format_ is TIFF:
        if exif is not None or notes.iptc is not None:
            _say_wrong(tiff_tags.put(file, exif, notes.iptc), name)
        return
    try:
        put_notes(file, format_, notes)
    except BoxError as error:
        _log.warning(
            "%s: no colour codes could be put into the %s (%s); written without them.",
            name,
            format_.name,
            error,
        )


def _say_wrong(wrong: list[int], name: str) -> None:
    if wrong:
        _log.warning(
            "%s: written without EXIF values of another type than their tags' (%s).",
            name,
            exif_types.names(wrong),
        )


def _is_grey(icc: bytes | None) -> bool:
    return icc is not None and icc[16:20] == b"GRAY"

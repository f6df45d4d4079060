"""EXIF and IPTC tags of TIFF files, read and written with Pillow's directories of tags.

libvips neither reads nor writes EXIF in TIFF (camera, date, author, GPS), and Pillow, which does,
cannot write a TIFF file row by row.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import BinaryIO

from PIL.ExifTags import GPSTAGS, TAGS
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2
from PIL.TiffTags import lookup

from pcsr_lightning.images.formats import RAW
from pcsr_lightning.images.geo_tags import GEO_TAGS, imagej_calibration, scaled_geo_tags
from pcsr_lightning.images.growth import AS_IT_WAS, Growth
from pcsr_lightning.images.pillow import pillow_errors
from pcsr_lightning.images.tiff_pages import Tags, TiffPages, load_directory

EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005
_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 0x112, 0x11A, 0x11B, 0x128
_IPTC = 0x83BB
_WIDTH, _HEIGHT, _PIXELS_ACROSS, _PIXELS_DOWN = 0x100, 0x101, 0xA002, 0xA003
_SUBJECT = {0x9214, 0xA214}  # area and location
_FOCAL_PLANE = (0xA20E, 0xA20F)  # pixels across and down per unit of the sensor
_RELATED_SIZE = {0x1001, 0x1002}  # the size again, which the picture says itself
_EXTRA_SAMPLES, _UNSPECIFIED = 0x152, 0
# Name, description, maker, model, software, date, artist, host, copyright, ratings, Windows
# titles, the colours of white and of the primaries. The other tags up to _LAST_BASELINE say how
# the pixels are stored.
_DESCRIPTIVE = {0x10D, 0x10E, 0x10F, 0x110, 0x131, 0x132, 0x13B, 0x13C, 0x8298, 0x4746, 0x4749}
_DESCRIPTIVE |= {0x13E, 0x13F, *range(0x9C9B, 0x9CA0)}
_LAST_BASELINE = 0x214
XMP, PHOTOSHOP, ICC = 0x2BC, 0x8649, 0x8773
_CARRIED_BY_LIBVIPS = {XMP, PHOTOSHOP, ICC}
_DESCRIPTION = 0x10E
_SHAPE, _XML = '{"shape"', ("<?xml", "<OME")  # programs that describe the old pixels there
_PHOTOMETRIC, _COMPRESSION, _YCBCR, _LAB, _JPEG = 0x106, 0x103, 6, {8, 9, 10}, {6, 7}
_NO_UNIT, _MM_PER_UNIT = 1, {2: 25.4, 3: 10.0}
_NAMES = GPSTAGS | TAGS
_EMPTY = b"II*\0\x08\0\0\0"


class TiffTags:
    """The tags of a TIFF file's picture, or of an EXIF block, which is built like a TIFF file.

    Args:
        file: seekable.
        pages: of a TIFF file whose picture may not be its first page.

    Attributes:
        first: tags of the picture's directory, and what describes the picture in the first one.
        below: those of the EXIF, GPS and interoperability directories, by the tag that points to
            each.

    Raises:
        ValueError: not built so, or damaged.
    """

    def __init__(self, file: BinaryIO, pages: TiffPages | None = None) -> None:
        with pillow_errors():
            self._file, self._head = file, header(file)[0]
            at = int(ImageFileDirectory_v2(self._head).next)
            self.first = self._directory(at)
            if pages is not None and pages.picture.at != at:
                shared = _DESCRIPTIVE | {EXIF, GPS, _IPTC} | _CARRIED_BY_LIBVIPS
                shared |= {_ORIENTATION} if pages.picture.sub_ifd >= 0 else set()
                about = {tag: self.first[tag] for tag in shared & set(self.first)}
                self.first = about | self._directory(pages.picture.at)
            self._pages = pages
            exif = self._below(self.first, EXIF)
            self.below = {
                EXIF: exif,
                GPS: self._below(self.first, GPS),
                INTEROPERABILITY: self._below(exif, INTEROPERABILITY),
            }

    @property
    def problem(self) -> str | None:
        """Why the file is refused: libvips would give wrong colours; or None."""
        if self._pages is not None and self._pages.raw is not None:
            return RAW.format(self._pages.raw)
        photometric, compression = self.first.get(_PHOTOMETRIC), self.first.get(_COMPRESSION)
        if photometric in _LAB:
            return "it is in Lab colours; save it as RGB"
        if photometric == _YCBCR and compression not in _JPEG:
            return "it is in YCbCr colours without JPEG compression; save it as RGB"
        return None

    @property
    def orientation(self) -> int:
        """1 to 8, EXIF's number for how the picture is to be turned; 1 if not named."""
        found = self.first.get(_ORIENTATION)
        return found if isinstance(found, int) and 1 <= found <= 8 else 1

    @property
    def resolution(self) -> tuple[float, float] | None:
        """Pixels per mm, across and down; None if not named."""
        per_unit = _MM_PER_UNIT.get(self.first.get(_UNIT, 2))
        return None if per_unit is None else self._density(per_unit)

    @property
    def density(self) -> tuple[float, float] | None:
        """Pixels per unit that the file does not name, where that says something."""
        found = self._density(1) if self.first.get(_UNIT, 2) not in _MM_PER_UNIT else None
        calibrated = imagej_calibration(str(self.first.get(_DESCRIPTION, ""))) is not None
        return found if found is not None and (calibrated or found[0] != found[1]) else None

    def _density(self, per_unit: float) -> tuple[float, float] | None:
        try:
            x, y = (float(self.first[tag]) / per_unit for tag in (_X_RESOLUTION, _Y_RESOLUTION))
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
        return (x, y) if 0 < x < math.inf and 0 < y < math.inf else None

    @property
    def alpha_is_unsure(self) -> bool:
        """Whether the file does not say what a channel beyond its colours is."""
        found = self.first.get(_EXTRA_SAMPLES, _UNSPECIFIED)
        return found in (_UNSPECIFIED, (_UNSPECIFIED,))

    @property
    def iptc(self) -> bytes | None:
        """IPTC records."""
        found = self.first.get(_IPTC)
        return found if isinstance(found, bytes) and found.startswith(b"\x1c") else None

    def block(self, tag: int) -> bytes | None:
        """What `XMP`, `PHOTOSHOP` or `ICC` hold, of which libvips reads those of one page only."""
        found = self.first.get(tag)
        # Pillow wraps those whose length it has no expectation of.
        found = found[0] if isinstance(found, tuple) and len(found) == 1 else found
        return found if isinstance(found, bytes) else None

    def tags(self) -> set[int]:
        """All tags but pointers, resolution and those that say how the pixels are stored."""
        first = {t for t in self.first if t in _DESCRIPTIVE or t > _LAST_BASELINE}
        pointers = {EXIF, GPS, INTEROPERABILITY}
        return first.union(*self.below.values()) - pointers - _RELATED_SIZE

    def names(self, tags: Iterable[int]) -> list[str]:
        """Names of tags, sorted; numbers for those that have none."""
        known = ((lookup(tag).name, tag) for tag in tags)
        return sorted(
            _NAMES.get(tag, f"0x{tag:04X}") if name == "unknown" else name for name, tag in known
        )

    def exif(self, growth: Growth = AS_IT_WAS) -> tuple[bytes | None, list[str]]:
        """What describes the picture as an EXIF block, and names of the tags that it leaves out."""
        block, left = self._block(_EMPTY, 8, {}, growth)
        others = {t for t in self.first if t > _LAST_BASELINE} - _DESCRIPTIVE - _CARRIED_BY_LIBVIPS
        left |= others - {EXIF, GPS, _IPTC} - GEO_TAGS
        return (_EMPTY + block if len(block) > 6 else None), self.names(left)

    def append_to(
        self,
        file: BinaryIO,
        iptc: bytes | None,
        density: tuple[float, float] | None,
        growth: Growth,
    ) -> None:
        """Adds what describes the picture to the TIFF file that was just written.

        The tags and a new first directory go to the end of the file, and its header points there.

        Args:
            file: open for reading and writing.
            iptc: records to add.
            density: pixels across and down in no unit, instead of the file's resolution.
            growth: of the pixels since these tags were written.

        Raises:
            OSError: the file cannot be written.
        """
        head, order, big = header(file)
        at = file.seek(0, 2)
        at += at % 2
        page = TiffTags(file)
        for exif_tag, tag in ((_PIXELS_ACROSS, _WIDTH), (_PIXELS_DOWN, _HEIGHT)):
            if exif_tag in self.below[EXIF]:
                self.below[EXIF][exif_tag] = page.first[tag]
        more: Tags = {} if iptc is None else {_IPTC: iptc}
        if density is not None:
            more |= {_X_RESOLUTION: density[0], _Y_RESOLUTION: density[1], _UNIT: _NO_UNIT}
        block, _ = self._block(head, at, more, growth)
        file.seek(at)
        file.write(block + b"\0" * (len(block) % 2))
        end = file.tell()
        rows = _rows(file, order, big) | _rows(file, order, big, at)
        file.seek(end)
        file.write(struct.pack(order + ("Q" if big else "H"), len(rows)))
        file.write(b"".join(rows[tag] for tag in sorted(rows)) + bytes(8 if big else 4))
        file.seek(8 if big else 4)
        file.write(struct.pack(order + ("Q" if big else "I"), end))

    def _directory(self, at: int, group: int | None = None) -> Tags:
        return load_directory(self._file, self._head, at, group)[0]

    def _below(self, tags: Tags, pointer: int) -> Tags:
        at = tags.get(pointer)
        return self._directory(at, pointer) if isinstance(at, int) else {}

    def _block(self, head: bytes, at: int, more: Tags, growth: Growth) -> tuple[bytes, set[int]]:
        """The directories to write at an offset behind a header; and the tags left out."""
        directory, left = ImageFileDirectory_v2(head), set[int]()

        def writable(tags: Tags, group: int | None) -> Tags:
            found = {}
            for tag, value in tags.items():
                if isinstance(value, str) and not value.isascii():
                    value = value.encode("latin-1")  # Pillow would write question marks
                if tag in self.below:
                    continue
                try:
                    with pillow_errors():
                        alone = ImageFileDirectory_v2(head, group=group)
                        alone[tag] = value
                        alone.tobytes()
                    found[tag] = value
                except (ValueError, OSError):
                    left.add(tag)
            return found

        first, lost = self._about_the_picture(growth)
        left |= lost
        exif, gps, other = (writable(tags, group) for group, tags in self.below.items())
        other = {tag: value for tag, value in other.items() if tag not in _RELATED_SIZE}
        left |= _grown(exif, growth)
        exif |= {INTEROPERABILITY: other} if other else {}
        below = {tag: tags for tag, tags in ((EXIF, exif), (GPS, gps)) if tags}
        for tag, value in {**writable(first, None), **below, **more}.items():
            directory[tag] = value
        return directory.tobytes(at), left

    def _about_the_picture(self, growth: Growth) -> tuple[Tags, set[int]]:
        """The first directory's tags to keep, and those that would no longer be right."""
        found = {tag: value for tag, value in self.first.items() if tag in _DESCRIPTIVE}
        left = set[int]()
        described = str(found.get(_DESCRIPTION, ""))
        calibration = imagej_calibration(described)
        if calibration is not None:
            found[_DESCRIPTION] = calibration
        elif described.startswith((_SHAPE, *_XML)):
            del found[_DESCRIPTION]
            left |= {_DESCRIPTION} if described.startswith(_XML) else set()
        try:
            if growth.turned != 1:
                raise ValueError("a turned map")
            found |= scaled_geo_tags(self.first, growth.across, growth.down)
        except (TypeError, ValueError):
            left |= GEO_TAGS & set(self.first)
        return found, left


def _grown(exif: Tags, growth: Growth) -> set[int]:
    """Brings places in the picture up to date, in place; tags that were removed instead."""
    left = set[int]()
    for tag in _SUBJECT & set(exif):
        place = growth.place(exif[tag])
        if place is None:
            del exif[tag]
            left.add(tag)
        else:
            exif[tag] = place
    x, y = (float(v) if isinstance(v, IFDRational) else 0.0 for v in map(exif.get, _FOCAL_PLANE))
    if x > 0 and y > 0:
        exif |= dict(zip(_FOCAL_PLANE, growth.density(x, y), strict=True))
    return left


def forget_unit(file: BinaryIO) -> None:
    """Says that the resolution is in no unit: libvips always writes one.

    Raises:
        OSError: the file cannot be written.
    """
    head, order, big = header(file)
    rows = _rows(file, order, big)
    rows[_UNIT] = struct.pack(order + ("2HQH" if big else "2HIH"), _UNIT, 3, 1, _NO_UNIT)
    rows[_UNIT] = rows[_UNIT].ljust(20 if big else 12, b"\0")
    file.seek(ImageFileDirectory_v2(head).next + (8 if big else 2))
    file.write(b"".join(rows.values()))


def header(file: BinaryIO) -> tuple[bytes, str, bool]:
    """A file's header, its byte order, and whether it is a BigTIFF."""
    file.seek(0)
    head = file.read(8)
    big = b"+" in head[2:4]
    return head + (file.read(8) if big else b""), "<" if head[:2] == b"II" else ">", big


def _rows(file: BinaryIO, order: str, big: bool, at: int | None = None) -> dict[int, bytes]:
    """A directory's entries as they stand in the file, in their order."""
    size = 20 if big else 12
    file.seek(ImageFileDirectory_v2(header(file)[0]).next if at is None else at)
    (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    rows = [file.read(size) for _ in range(count)]
    return {struct.unpack(order + "H", row[:2])[0]: row for row in rows}

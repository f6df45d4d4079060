"""What TIFF files keep in tags of their own: EXIF and IPTC taken out of one, put into another."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import BinaryIO

from pcsr_lightning.images import exif_types, iptc, tags
from pcsr_lightning.images.tags import Entry, TagError, TagReader

# Of the first directory: name, description, maker, model, software, date, artist, host, copyright,
# Windows' titles and ratings, the colours of white and of the primaries. The rest tells how the
# pixels are stored.
_DESCRIPTIVE = {0x10D, 0x10E, 0x10F, 0x110, 0x131, 0x132, 0x13B, 0x13C, 0x8298, 0x4746, 0x4749}
_DESCRIPTIVE |= {0x13E, 0x13F}
_DESCRIPTIVE |= set(range(0x9C9B, 0x9CA0))
_DESCRIPTION = 0x10E
# Programs that describe the layout of the old pixels there.
_LAYOUTS = (b'{"shape"', b"ImageJ=", b"<?xml", b"<OME")
_POINTERS = (tags.EXIF, tags.GPS, tags.INTEROPERABILITY)
_PHOTOMETRIC, _COMPRESSION, _YCBCR, _LAB = 0x106, 0x103, 6, {8, 9, 10}
_JPEG = {6, 7}
_IPTC, _PHOTOSHOP = 0x83BB, 0x8649
_UNDEFINED = 7


def problem(reader: TagReader) -> str | None:
    """Why libvips would give wrong colours for the first page, or None."""
    entries, _ = reader.directory(reader.first)
    found = {}
    for tag in (_PHOTOMETRIC, _COMPRESSION):
        try:
            found[tag] = reader.whole(entries[tag])
        except (KeyError, TagError):
            return None
    if found[_PHOTOMETRIC] in _LAB:
        return "it is in Lab colours; save it as RGB"
    if found[_PHOTOMETRIC] == _YCBCR and found[_COMPRESSION] not in _JPEG:
        return "it is in YCbCr colours without JPEG compression; save it as RGB"
    return None


def size_of(reader: TagReader) -> tuple[int, int] | None:
    """The first page's (h, w), or None if it does not tell."""
    entries, _ = reader.directory(reader.first)
    try:
        return reader.whole(entries[tags.HEIGHT]), reader.whole(entries[tags.WIDTH])
    except (KeyError, TagError):
        return None


def take_exif(reader: TagReader, wrong: list[int]) -> bytes | None:
    """The first page's EXIF, GPS and descriptive tags as an EXIF block; None if it has none.

    Args:
        reader: of the file.
        wrong: takes the tags left out because their values are not of the tag's type.
    """
    first, _ = reader.directory(reader.first)
    kept = [
        entry
        for entry in _descriptive(first, wrong)
        if not (entry.tag == _DESCRIPTION and entry.value.startswith(_LAYOUTS))
    ]
    blocks = _below(reader, first, wrong)
    if not kept and not blocks:
        return None
    order = reader.order
    head = (b"II*\0" if order == "<" else b"MM\0*") + bytes(4)
    data, at = _laid_out(head, kept, blocks, order, False, [])
    return data[:4] + struct.pack(order + "I", at) + data[8:]


def take_iptc(reader: TagReader) -> bytes | None:
    """The first page's IPTC records, whether in a tag of their own or among Photoshop's resources.

    Raises:
        ValueError: they are damaged.
    """
    first, _ = reader.directory(reader.first)
    if (own := first.get(_IPTC)) is not None:
        # Often called 32-bit numbers, and then turned with the byte order of the file.
        turned = tags.swapped(own, "<", ">") if own.kind == tags.LONG else own
        records = own.value if own.value[:1] == b"\x1c" else turned.value
        return iptc.checked(records) if records.strip(b"\0") else None
    resources = first.get(_PHOTOSHOP)
    return None if resources is None else iptc.from_resources(resources.value)


def put(file: BinaryIO, exif: bytes | None, records: bytes | None) -> list[int]:
    """Adds an EXIF block, IPTC records or both to the TIFF file that was just written.

    Their tags and a new first directory go to the end of the file, and the header points there.

    Returns:
        The tags of the block left out because their values are not of the tag's type.

    Raises:
        TagError: the block is damaged.
        OSError: the file cannot be written.
    """
    target = TagReader(file)
    wanted, kept, blocks = target.order, [], {}
    wrong: list[int] = []
    if exif is not None:
        source = TagReader(BytesIO(exif))
        first, _ = source.directory(source.first)
        kept = [tags.swapped(e, source.order, wanted) for e in _descriptive(first, wrong)]
        blocks = {
            tag: [tags.swapped(e, source.order, wanted) for e in entries]
            for tag, entries in _below(source, first, wrong).items()
        }
    if records is not None:
        kept.append(Entry(_IPTC, _UNDEFINED, len(records), records))
    start = target.size + target.size % 2
    old = target.raw_entries(target.first)
    data, at = _laid_out(b"", kept, blocks, wanted, target.big, old, start)
    file.seek(target.size)
    file.write(b"\0" * (start - target.size) + data)
    file.seek(8 if target.big else 4)
    file.write(struct.pack(wanted + ("Q" if target.big else "I"), at))
    return wrong


def forget_resolution(file: BinaryIO) -> None:
    """Says that the resolution is in no unit: libvips always writes one, and none is known."""
    reader = TagReader(file)
    entry = reader.directory(reader.first)[0].get(tags.RESOLUTION_UNIT)
    if entry is not None:
        file.seek(entry.at)
        file.write(struct.pack(reader.order + "H", 1))


def _descriptive(first: dict[int, Entry], wrong: list[int]) -> list[Entry]:
    known = (entry for entry in first.values() if entry.tag in _DESCRIPTIVE)
    return list(exif_types.as_specified(exif_types.FIRST, known, wrong))


def _below(reader: TagReader, first: dict[int, Entry], wrong: list[int]) -> dict[int, list[Entry]]:
    """The directories that the first one points to, each without pointers of its own."""
    exif = reader.below(first, tags.EXIF)
    found = {
        tags.EXIF: exif,
        tags.GPS: reader.below(first, tags.GPS),
        tags.INTEROPERABILITY: reader.below(exif, tags.INTEROPERABILITY),
    }
    plain = {
        tag: [entry for entry in entries.values() if entry.tag not in _POINTERS]
        for tag, entries in found.items()
        if entries
    }
    return {
        tag: list(exif_types.as_specified(tag, entries, wrong)) for tag, entries in plain.items()
    }


def _laid_out(
    data: bytes,
    first: list[Entry],
    blocks: dict[int, list[Entry]],
    order: str,
    big: bool,
    old: list[bytes],
    start: int = 0,
) -> tuple[bytes, int]:
    """`data` with all directories behind it, and where in the file the first one lies.

    Args:
        start: where in the file `data` is going to lie.
    """

    def placed(entries: list[Entry], old: list[bytes]) -> int:
        nonlocal data
        data += b"\0" * (len(data) % 2)
        at = start + len(data)
        data += tags.directory_bytes(entries, at, order, big, old=old)
        return at

    def pointer(tag: int) -> Entry:
        kind = tags.LONG8 if big else tags.LONG
        return tags.number_entry(tag, kind, placed(blocks[tag], []), order)

    if tags.INTEROPERABILITY in blocks:
        inner = pointer(tags.INTEROPERABILITY)
        blocks = {**blocks, tags.EXIF: [*blocks.get(tags.EXIF, []), inner]}
    pointers = [pointer(tag) for tag in (tags.EXIF, tags.GPS) if tag in blocks]
    at = placed([*first, *pointers], old)
    return data, at

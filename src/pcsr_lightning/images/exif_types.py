"""Of which type each tag's values are, as far as EXIF 2.32 and TIFF 6 say.

Lenient where programs differ: any whole number for another, any fraction, any bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pcsr_lightning.images.tags import EXIF, GPS, INTEROPERABILITY, Entry

FIRST = 0
"""Stands for the first directory, which no tag points to."""

_TEXT, _BYTES = {2, 129}, {1, 2, 7, 129}
_WHOLE, _FRACTION = {1, 3, 4}, {5, 10}
_Rule = tuple[set[int], int | None]
_ANY = None


def _rules(*rows: tuple[set[int], int | None, Iterable[int]]) -> dict[int, _Rule]:
    return {tag: (kinds, count) for kinds, count, tags in rows for tag in tags}


_RULES: dict[int, dict[int, _Rule]] = {
    FIRST: _rules(
        (_TEXT, _ANY, [0x10D, 0x10E, 0x10F, 0x110, 0x131, 0x132, 0x13B, 0x13C, 0x8298]),
        (_BYTES, _ANY, range(0x9C9B, 0x9CA0)),
        (_WHOLE, 1, [0x4746, 0x4749]),
        (_FRACTION, 2, [0x13E]),
        (_FRACTION, 6, [0x13F]),
    ),
    EXIF: _rules(
        (_FRACTION, 1, [0x829A, 0x829D, *range(0x9201, 0x9207), 0x9102, 0x920A]),
        (_FRACTION, 1, [0xA20B, 0xA20E, 0xA20F, 0xA215, 0xA404, 0xA500, *range(0x9400, 0x9406)]),
        (_FRACTION, 4, [0xA432]),
        (_TEXT, _ANY, [0x9003, 0x9004, *range(0x9010, 0x9013), *range(0x9290, 0x9293)]),
        (_TEXT, _ANY, [0x8824, 0xA004, 0xA420, 0xA430, 0xA431, 0xA433, 0xA434, 0xA435]),
        (_WHOLE, 1, [0x8822, *range(0x8830, 0x8836), 0x9207, 0x9208, 0x9209]),
        (_WHOLE, 1, [0xA001, 0xA002, 0xA003, 0xA210, 0xA217]),
        (_WHOLE, 1, [0xA401, 0xA402, 0xA403, *range(0xA405, 0xA40B), 0xA40C]),
        (_WHOLE, _ANY, [0x8827, 0x9214, 0xA214]),
        (_BYTES, 4, [0x9000, 0x9101, 0xA000]),
        (_BYTES, _ANY, [0x927C, 0x9286, 0x8828, 0xA20C, 0xA300, 0xA301, 0xA302, 0xA40B]),
    ),
    GPS: _rules(
        (_BYTES, 4, [0x00]),
        (_TEXT, _ANY, [1, 3, 8, 9, 0xA, 0xC, 0xE, 0x10, 0x12, 0x13, 0x15, 0x17, 0x19, 0x1D]),
        (_FRACTION, 3, [2, 4, 7, 0x14, 0x16]),
        (_FRACTION, 1, [6, 0xB, 0xD, 0xF, 0x11, 0x18, 0x1A, 0x1F]),
        (_WHOLE, 1, [5, 0x1E]),
        (_BYTES, _ANY, [0x1B, 0x1C]),
    ),
    INTEROPERABILITY: _rules((_TEXT, _ANY, [1]), (_BYTES, 4, [2])),
}


def as_specified(directory: int, entries: Iterable[Entry], wrong: list[int]) -> Iterator[Entry]:
    """The entries whose type and count are those of their tag; unknown tags may have any.

    Args:
        directory: `FIRST`, or the tag that points to the directory.
        entries: of it.
        wrong: takes the tags that are left out.
    """
    for entry in entries:
        kinds, count = _RULES[directory].get(entry.tag, ({entry.kind}, None))
        if entry.kind in kinds and entry.count > 0 and count in (None, entry.count):
            yield entry
        else:
            wrong.append(entry.tag)


def names(tags: Iterable[int]) -> str:
    """Tags as people look them up."""
    return ", ".join(f"0x{tag:04X}" for tag in tags)

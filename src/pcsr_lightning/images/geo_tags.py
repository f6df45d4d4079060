"""Tags that tie the pixels of a scientific TIFF file to the world, for more pixels of it.

libvips and Pillow carry none of them to a picture of another size; without this a map has no place
and a microscope's picture no scale.
"""

from __future__ import annotations

from typing import Any

_SCALE, _TIE_POINTS, _TRANSFORMATION, _KEYS = 33550, 33922, 34264, 34735
GEO_TAGS = frozenset({_SCALE, _TIE_POINTS, _TRANSFORMATION, _KEYS, 34736, 34737})
"""GeoTIFF's (OGC 19-008r4)."""
_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2
_IMAGEJ_COUNTS = ("images=", "channels=", "slices=", "frames=", "hyperstack=", "mode=", "loop=")


def scaled_geo_tags(tags: dict[int, Any], across: float, down: float) -> dict[int, Any]:
    """GeoTIFF's tags of a picture that has more pixels for the same place.

    Args:
        tags: may hold others, which are left out.
        across: new pixels for each old one; `down` likewise.

    Raises:
        ValueError: they are not as GeoTIFF has them.
    """
    found = {tag: value for tag, value in tags.items() if tag in GEO_TAGS}
    # Coordinates count from the first pixel's corner, or from its centre.
    half = 0.5 if _raster_type(found.get(_KEYS, ())) == _PIXEL_IS_POINT else 0.0
    if _SCALE in found:
        x, y, z = (float(v) for v in found[_SCALE])
        found[_SCALE] = (x / across, y / down, z)
    if _TIE_POINTS in found:
        points = [float(v) for v in found[_TIE_POINTS]]
        if len(points) % 6:
            raise ValueError("a tie point has 6 numbers")
        for i in range(0, len(points), 6):
            points[i] = (points[i] + half) * across - half
            points[i + 1] = (points[i + 1] + half) * down - half
        found[_TIE_POINTS] = tuple(points)
    if _TRANSFORMATION in found:
        found[_TRANSFORMATION] = _finer(found[_TRANSFORMATION], across, down, half)
    return found


def _raster_type(keys: Any) -> int:
    """From the directory of keys: its head, then for each key its number, place, count, value."""
    entries = tuple(keys)
    rows = (entries[at : at + 4] for at in range(4, len(entries) - 3, 4))
    return next((int(row[3]) for row in rows if row[0] == _RASTER_TYPE), 1)


def _finer(matrix: Any, across: float, down: float, half: float) -> tuple[float, ...]:
    """The 4 x 4 matrix from pixels to the world."""
    m = [float(v) for v in matrix]
    if len(m) != 16:
        raise ValueError("a transformation has 16 numbers")
    for row in range(0, 12, 4):
        m[row + 3] += half * (m[row] * (1 / across - 1) + m[row + 1] * (1 / down - 1))
        m[row] /= across
        m[row + 1] /= down
    return tuple(m)


def imagej_calibration(description: str) -> str | None:
    """ImageJ's description without what counts the pictures of a stack; None if it is not ImageJ's.

    With its unit goes the file's resolution, which names none.
    """
    if not description.startswith("ImageJ="):
        return None
    kept = [line for line in description.splitlines() if not line.startswith(_IMAGEJ_COUNTS)]
    return "\n".join(kept) + "\n"

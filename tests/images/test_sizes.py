"""Sizes: looked at before memory is taken, and before libvips complains of them on its own."""

from __future__ import annotations

import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.images.made_files import pillow, refused, tiff

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import MAX_PIXELS, Picture, check_writable, decode, encode, write


def png_header(width: int, height: int, depth: int = 8) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = b""
    for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 999)), (b"IEND", b"")):
        crc = struct.pack(">I", zlib.crc32(name + data))
        chunks += struct.pack(">I", len(data)) + name + data + crc
    return b"\x89PNG\r\n\x1a\n" + chunks


def bomb(kind: str) -> bytes:
    if kind == "png":
        return png_header(40_000, 30_000)
    if kind == "tiff":
        data = bytearray(tiff(np.zeros((4, 4), np.uint8), compression="zlib"))
        for tag in (256, 257, 278):  # width, length, rows of a strip
            at = data.index(struct.pack("<HHI", tag, 4, 1))
            data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 30_000)
        return bytes(data)
    data = bytearray(pillow(kind.upper()))
    if kind == "bmp":
        data[18:26] = struct.pack("<ii", 40_000, 30_000)
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


def peak_kilobytes() -> int:
    """The most memory that this process had in use."""
    [line] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures as Linux does")
def test_a_bomb_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    kinds = ["png", "jpeg", "bmp", "tiff"]
    for kind in kinds:
        (tmp_path / kind).write_bytes(bomb(kind))
    Path("/proc/self/clear_refs").write_text("5")  # the peak falls to what is in use now
    before = peak_kilobytes()
    for kind in kinds:
        assert "more than the 268,435,456 that are read at most" in refused(tmp_path / kind)
    assert peak_kilobytes() - before < 60_000


def test_the_limit_is_exact_and_can_be_moved() -> None:
    data = encode(Picture(torch.rand(3, 9, 13)), "png")
    assert decode(data, max_pixels=117).rgb.shape == (3, 9, 13)
    assert "13 x 9 pixels, more than the 116 that are read" in refused(data, max_pixels=116)
    assert decode(data, max_pixels=None).rgb.shape == (3, 9, 13)
    assert MAX_PIXELS == 2**28
    assert "13 x 9 pixels" in refused(pillow("BMP"), max_pixels=116)
    assert "more than" not in refused(png_header(40_000, 30_000), max_pixels=None)


@pytest.mark.parametrize(
    ("name", "largest"),
    [("jpg", 65_500), ("webp", 16_383), ("avif", 16_384), ("png", 1_000_000), ("tif", 1_000_000)],
)
def test_the_largest_sides_are_what_the_libraries_take(name: str, largest: int) -> None:
    line = torch.zeros(3, 1, largest)
    check_writable(name, (1, largest))
    assert decode(encode(Picture(line), name)).rgb.shape == line.shape
    for path in (name, f".{name}", f"some/where.{name.upper()}", Path(f"./x.{name}")):
        with pytest.raises(PictureError, match=rf"holds at most {largest:,} pixels a side"):
            check_writable(path, (largest + 1, 1))


def test_what_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"x\.gif: cannot write a picture of kind '\.gif'"):
        check_writable("x.gif", (1, 1))
    with pytest.raises(PictureError, match="BMP holds at most 4 GB"):
        check_writable(tmp_path / "x.bmp", (30_000, 50_000))
    with pytest.raises(PictureError, match="1 to 100, not 101"):
        write(Picture(torch.rand(3, 4, 4)), tmp_path / "x.jpg", quality=101)
    with pytest.raises(PictureError, match="nothing to write"):
        write(Picture(torch.rand(3, 0, 4)), tmp_path / "x.jpg")
    with pytest.raises(PictureError, match="alpha is"):
        write(Picture(torch.rand(3, 4, 4), torch.rand(1, 4, 5)), tmp_path / "x.png")
    for bad in (float("nan"), float("inf"), float("-inf")):
        holed = torch.rand(3, 300, 4)
        holed[1, 290, 2] = bad
        for grey in (False, True):
            with pytest.raises(PictureError, match=r"x\.png: the picture holds NaN or infinite"):
                write(Picture(holed, grey=grey), tmp_path / "x.png")
        with pytest.raises(PictureError, match="NaN or infinite"):
            write(Picture(holed, torch.rand(1, 300, 4)), tmp_path / "x.jpg")
    with pytest.raises(PictureError, match="is not a regular file"):
        write(Picture(torch.rand(3, 4, 4)), "/dev/null", format="png")
    assert list(tmp_path.iterdir()) == []


# Claims beyond what libvips can express


def absurd(kind: str, number: int, at: int) -> bytes:
    """A file that claims a width (`at` 0) or height (`at` 1) of `number`."""
    if kind == "png":
        sides = [13, 13]
        sides[at] = number
        return png_header(*sides)
    if kind == "avif":
        data = bytearray(pillow("AVIF"))
        struct.pack_into(">I", data, data.index(b"ispe") + 8 + 4 * at, number)
        return bytes(data)
    tag, order = (256, 257)[at], {"tiff": "<", "tiff-be": ">", "bigtiff": "<"}[kind]
    data = bytearray(tiff(np.zeros((4, 4), np.uint8), byteorder=order, bigtiff=kind == "bigtiff"))
    for size in (3, 4):
        kinds = struct.pack(order + "HH", tag, size)
        found = data.find(kinds)
        if found >= 0:
            head = 12 if kind == "bigtiff" else 8
            struct.pack_into(order + "H", data, found + 2, 4)
            struct.pack_into(order + "I", data, found + head, number)
    return bytes(data)


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("kind", ["png", "avif", "tiff", "tiff-be", "bigtiff"])
def test_absurd_sizes_are_one_line_of_ours(
    kind: str, at: int, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in (0, 10_000_001, 2**27, 2**31 - 1, 2**31, 2**32 - 1):
        for limit in (MAX_PIXELS, None):
            refused(absurd(kind, number, at), max_pixels=limit)
    # GLib writes past Python.
    assert capfd.readouterr() == ("", "")

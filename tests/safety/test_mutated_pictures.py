"""Hundreds of damaged and lying picture files through the command: it ends well for each."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image
from tests.images.made_files import (
    GAMMA,
    IPTC,
    PHOTOSHOP,
    PQ,
    RGB,
    TEXTS,
    jpeg_with,
    pillow,
    png_with,
    raw_profile,
    retold,
    tiff,
)
from tests.images.test_outdated import ASPECT, ITXT_OF_XMP, PANO, geo, packet
from tests.images.test_tiff_pages import FILES
from tests.small import small_pcsr

from pcsr_lightning.batch.records import RECORD_NAME
from pcsr_lightning.weights import save

SCALE = 2
MOST_SECONDS = 10.0
MOST_MEMORY = 3 * 2**29
"""Bytes: PyTorch alone takes a third of it."""
NUMBERS = (0, 1, 2, 7, 255, 4097, 20_000, 65_535, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
SUFFIXES = {
    "PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "AVIF": ".avif",
    "GIF": ".gif",
}  # fmt: skip
Change = Callable[[random.Random, bytearray], bytes]


def whole_pictures() -> list[tuple[str, bytes]]:
    """Suffix and content of pictures that nothing is wrong with."""
    values = np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8).transpose(1, 2, 0)
    rgb = Image.fromarray(values).resize((21, 17), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    cases: list[tuple[str, Image.Image, dict[str, Any]]] = []
    for kind in SUFFIXES:
        cases.append((kind, rgb, {} if kind in ("BMP", "GIF") else {"exif": exif}))
    cases += [
        ("PNG", rgb.convert("P"), {"transparency": 3}),
        ("PNG", rgb.convert("I;16"), {}),
        ("PNG", rgb.convert("1"), {}),
        ("JPEG", rgb.convert("CMYK"), {"progressive": True}),
        ("WEBP", rgb.convert("RGBA"), {"lossless": True}),
        ("TIFF", rgb.convert("LA"), {"compression": "tiff_lzw"}),
        ("TIFF", rgb, {"compression": "jpeg"}),
        ("BMP", rgb.convert("P"), {}),
        ("AVIF", rgb.convert("RGBA"), {}),
    ]
    made = []
    for kind, image, options in cases:
        file = io.BytesIO()
        image.save(file, kind, **options)
        made.append((SUFFIXES[kind], file.getvalue()))
    return made + captioned_pictures()


def captioned_pictures() -> list[tuple[str, bytes]]:
    """Likewise, with captions and colour codes."""
    late = ((b"tEXt", b"Source\0late"),)
    tagged = [(33723, 7, len(IPTC), IPTC, True), (0x010F, 2, 0, "maker", True)]
    return [
        (".png", png_with(*TEXTS, PQ, GAMMA, raw_profile("iptc", PHOTOSHOP), after=late)),
        (".jpg", jpeg_with((0xED, b"Photoshop 3.0\0" + PHOTOSHOP), (0xFE, b"a comment"))),
        (".tif", tiff(RGB, photometric="rgb", extratags=tagged, byteorder=">")),
        (".avif", retold(pillow("AVIF"), 9, 16)),
        *outdated_pictures(),
    ]


def outdated_pictures() -> list[tuple[str, bytes]]:
    """Likewise, with what has to be brought up to date, and a thumbnail in front."""
    claims = f'{PANO} GPano:FullPanoWidthPixels="128" tiff:ImageWidth="13"'
    xmp = packet(
        claims,
        "<xmp:Thumbnails><a/></xmp:Thumbnails><exif:PixelXDimension>9</exif:PixelXDimension>",
    )
    late = ((b"eXIf", Image.Exif().tobytes()[6:]), (b"iTXt", ITXT_OF_XMP + xmp))
    rgba = Image.fromarray(RGB).convert("RGBA")
    rgba.putalpha(77)
    return [
        (".jpg", jpeg_with((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp))),
        (".png", png_with(ASPECT, after=late)),
        (".tif", geo(2, matrix=True, resolution=(2, 1), resolutionunit=1)),
        (".tif", FILES["SubIFDs"]),
        (".avif", pillow("AVIF", rgba, alpha_premultiplied=True)),
    ]


def cut_off(draw: random.Random, data: bytearray) -> bytes:
    return bytes(data[: draw.randrange(len(data))])


def flip_bits(draw: random.Random, data: bytearray) -> bytes:
    for _ in range(draw.choice((1, 1, 3, 16))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def flip_early_bits(draw: random.Random, data: bytearray) -> bytes:
    for _ in range(draw.choice((1, 2))):
        data[draw.randrange(min(len(data), 120))] ^= 1 << draw.randrange(8)
    return bytes(data)


def blank_out(draw: random.Random, data: bytearray) -> bytes:
    start = draw.randrange(len(data))
    stop = min(len(data), start + draw.randrange(1, 64))
    data[start:stop] = bytes([draw.choice((0, 255))]) * (stop - start)
    return bytes(data)


def repeat_or_drop(draw: random.Random, data: bytearray) -> bytes:
    start = draw.randrange(len(data))
    part = data[start : start + draw.randrange(1, 200)]
    data[start : start + draw.choice((0, len(part)))] = part * draw.choice((0, 2, 500))
    return bytes(data)


def lie_in_the_header(draw: random.Random, data: bytearray) -> bytes:
    """Another number where the format keeps sizes, depths, offsets or lengths."""
    places = list(_fields(bytes(data)))
    for at, kind in draw.sample(places, min(len(places), draw.choice((1, 1, 2)))):
        bits = 8 * struct.calcsize(kind)
        struct.pack_into(kind, data, at, draw.choice(NUMBERS) % 2**bits)
    if data[:4] == b"\x89PNG":
        _mend_checksums(data)
    return bytes(data)


CHANGES: list[Change] = [
    cut_off, flip_bits, flip_early_bits, blank_out, repeat_or_drop,
    lie_in_the_header, lie_in_the_header, lie_in_the_header,
]  # fmt: skip


def _fields(data: bytes) -> Iterator[tuple[int, str]]:
    """Where numbers lie in a header, and of which kind."""
    if data[:4] == b"\x89PNG":
        yield from [(16, ">I"), (20, ">I"), (24, "B"), (25, "B"), (26, "B"), (28, "B")] * 2
        at = 8
        while at + 12 <= len(data):
            yield at, ">I"
            at += 12 + int.from_bytes(data[at : at + 4], "big")
    elif data[:2] == b"\xff\xd8":
        at = 2
        while at + 10 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
            yield at + 2, ">H"
            if data[at + 1] in (0xC0, 0xC2):
                yield from [(at + 4, "B"), (at + 5, ">H"), (at + 7, ">H"), (at + 9, "B")] * 2
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    elif data[:4] == b"RIFF":
        yield from [(4, "<I"), (16, "<I"), (20, "<I"), (24, "<I"), (26, "<H"), (28, "<H")]
    elif data[:2] in (b"II", b"MM"):
        order = "<" if data[:2] == b"II" else ">"
        first = struct.unpack_from(order + "I", data, 4)[0]
        yield 4, order + "I"
        yield first, order + "H"
        for i in range(struct.unpack_from(order + "H", data, first)[0]):
            at = first + 2 + 12 * i
            yield from [(at, order + "H"), (at + 2, order + "H"), (at + 4, order + "I")]
            yield from [(at + 8, order + "I")] * 3
    elif data[:3] == b"GIF":
        yield from [(6, "<H"), (8, "<H"), (10, "B")]
    elif data[:2] == b"BM":
        for at in (2, 10, 14, 18, 22, 30, 34, 46):
            yield at, "<I"
        yield 28, "<H"
    else:
        yield 0, ">I"
        for name in (b"ispe", b"iloc", b"meta", b"mdat", b"pixi", b"av1C", b"iprp", b"iinf"):
            found = data.find(name)
            if found >= 4:
                yield from [(found - 4, ">I"), (found + 4, ">I"), (found + 8, ">I")]
                yield found + 12, ">H"


def _mend_checksums(data: bytearray) -> None:
    """So that a lie is believed."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4


def mutated(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Name and content of ``count`` files, the same for the same seed; a few have lying names."""
    draw, whole = random.Random(seed), whole_pictures()
    for i in range(count):
        suffix, data = whole[i % len(whole)]
        if i % 10 == 9:
            suffix = draw.choice([s for s in SUFFIXES.values() if s != suffix])
        if i % 20 != 9:
            data = draw.choice(CHANGES)(draw, bytearray(data))
        yield f"{i:03}{suffix}", data


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small_pcsr(), tmp_path_factory.mktemp("model") / "m")


def check(folder: Path, done: Any, out: Path, wanted: list[str]) -> tuple[int, int]:
    """How many pictures were made, and how many refused."""
    *found, summary = done.objects
    made = [line for line in found if line["status"] == "done"]
    failed = [line for line in found if line["status"] == "failed"]
    assert sorted(Path(line["input"]).name for line in found) == wanted
    assert len(made) + len(failed) == len(wanted)
    assert (summary["done"], summary["failed"]) == (len(made), len(failed))
    assert done.code == (1 if failed else 0)
    assert done.slowest < MOST_SECONDS
    assert done.peak < MOST_MEMORY
    # Outputs: those of the pictures that could be read, whole, of the right size, and no others.
    files = out.rglob("*") if out.exists() else ()
    there = sorted(p for p in files if p.is_file() and p.name != RECORD_NAME)
    assert there == sorted(Path(line["output"]) for line in made)
    for line in made:
        if line["output"].endswith(".bmp"):
            with Image.open(line["output"]) as bmp:
                bmp.load()
                size = bmp.size
        else:
            image = pyvips.Image.new_from_file(line["output"], fail_on="error")
            image.avg()
            size = (image.width, image.height)
        assert size == tuple(SCALE * side for side in line["input_size"])
    # Failures: a line each, that names the file.
    errors = [line for line in done.stderr if line.startswith("error: ")]
    assert errors == [f"error: {line['error']}" for line in failed]
    for line in failed:
        assert line["error"].startswith(f"{line['input']}: ")
        assert "--debug" not in line["error"], "an error that nobody foresaw"
        assert len(line["error"]) < 500
    other = [line for line in done.stderr if line not in errors]
    assert all(line.startswith("WARNING: ") for line in other), other
    return len(made), len(failed)


def run_all(watched: Any, tmp_path: Path, model: Path, seed: int, count: int) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    names = []
    for name, data in mutated(seed, count):
        (source / name).write_bytes(data)
        names.append(name)
    before = {p.name: p.read_bytes() for p in source.iterdir()}
    done = watched(source, out, "--json", "--model", model, "--scale", SCALE)
    made, failed = check(source, done, out, names)
    print(
        f"seed {seed}: {made} made, {failed} refused, slowest {done.slowest:.2f} s, "
        f"peak {done.peak / 2**20:.0f} MiB"
    )
    assert made > count // 8
    assert failed > count // 8
    assert {p.name: p.read_bytes() for p in source.iterdir()} == before


def test_the_whole_pictures_are_read(unwatched: Any, tmp_path: Path, model: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    names = []
    for i, (suffix, data) in enumerate(whole_pictures()):
        names.append(f"{i:02}{suffix}")
        (source / names[-1]).write_bytes(data)
    done = unwatched(source, tmp_path / "out", "--json", "--model", model, "--scale", SCALE)
    assert check(source, done, tmp_path / "out", names) == (len(names), 0)


def test_mutated_pictures(watched: Any, tmp_path: Path, model: Path) -> None:
    run_all(watched, tmp_path, model, seed=0, count=120)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_mutated_pictures(watched: Any, tmp_path: Path, model: Path, seed: int) -> None:
    run_all(watched, tmp_path, model, seed, count=500)


@pytest.mark.parametrize("change", [cut_off, lie_in_the_header])
def test_one_file(unwatched: Any, tmp_path: Path, model: Path, change: Change) -> None:
    suffix, data = whole_pictures()[0]
    path, out = tmp_path / f"x{suffix}", tmp_path / "y.png"
    path.write_bytes(change(random.Random(1), bytearray(data)))
    done = unwatched(path, out, "--model", model, "--scale", SCALE)
    assert (done.code, done.stdout) == (1, [])
    [line] = done.stderr
    assert line.startswith(f"error: {path}: ")
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]

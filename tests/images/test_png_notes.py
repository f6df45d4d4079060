"""Captions and colour codes of PNG files: kept, whatever holds them, or named when damaged."""

from __future__ import annotations

import io
import time
import zlib
from pathlib import Path

import numpy as np
import png
import pytest
from PIL import Image
from tests.images.made_files import (
    CORNERS,
    GAMMA,
    LATE,
    PQ,
    RGB,
    SRGB,
    TEXTS,
    chunk,
    chunks,
    enlarged,
    large,
    notes_of,
    opened,
    png_with,
    raw_profile,
)

from pcsr_lightning.images import decode, encode
from pcsr_lightning.images.notes import Notes
from pcsr_lightning.images.png_notes import read_png

SIGNED = "in: read without "


@pytest.mark.parametrize("by_rows", [False, True])
def test_texts_of_png_stay(tmp_path: Path, by_rows: bool, caplog: pytest.LogCaptureFixture) -> None:
    data = png_with(*TEXTS, after=LATE)
    found = large("png", data, tmp_path, by_rows)
    assert [c for c in chunks(found) if c[0] in (b"tEXt", b"zTXt", b"iTXt")] == [*TEXTS, *LATE]
    texts = opened(found).text
    assert texts["Author"] == "A. Author" * 50
    assert texts["Copyright"] == "© Grüße"
    assert texts["parameters"] == "steps: 20"
    pixels = np.asarray(opened(found))
    assert np.array_equal(pixels, np.tile(RGB, (2, 2, 1)))
    assert caplog.messages == []


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("colour", [(GAMMA,), (GAMMA, CORNERS), (PQ, GAMMA), SRGB, (PQ,)])
def test_colour_chunks_of_png_stay_and_pixels_too(
    colour: tuple[tuple[bytes, bytes], ...], tmp_path: Path, by_rows: bool
) -> None:
    file = io.BytesIO()
    deep = RGB.astype(np.uint16) * 251 + 3
    png.Writer(13, 9, bitdepth=16, greyscale=False).write(file, deep.reshape(9, -1).tolist())
    whole = file.getvalue()
    data = whole[:33] + b"".join(chunk(*c) for c in colour) + whole[33:]
    found = large("png", data, tmp_path, by_rows)
    assert {name: body for name, body in chunks(found) if name in dict(colour)} == dict(colour)
    *_, rows, _ = png.Reader(bytes=found).asDirect()
    assert np.array_equal(np.array([*map(list, rows)]).reshape(18, 26, 3), np.tile(deep, (2, 2, 1)))


def test_colour_for_brighter_screens_stays() -> None:
    bright = ((b"mDCV", bytes(range(24))), (b"cLLI", bytes(8)))
    assert set(bright) <= set(chunks(encode(enlarged(png_with(PQ, *bright)), "png")))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (chunk(b"tEXt", b"Title\0abc")[:-1] + b"x", "a damaged text chunk"),
        (chunk(b"tEXt", b"no end"), "a damaged text chunk"),
        (chunk(b"tEXt", b"\0nameless"), "a damaged text chunk"),
        (chunk(b"tEXt", b"\x1b[2J\0a terminal is steered"), "a damaged text chunk"),
        (chunk(b"zTXt", b"Title\0\0not deflated"), "its damaged text 'Title'"),
        (chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"x" * 99)[:-5]), "its damaged text 'Title'"),
        (chunk(b"zTXt", b"Title\0\7" + zlib.compress(b"x")), "its damaged text 'Title'"),
        (chunk(b"iTXt", b"Title\0\0\0\0\0\xff\xfe"), "its damaged text 'Title'"),
        (chunk(b"iTXt", b"Title\0\0\0\0"), "its damaged text 'Title'"),
        (chunk(b"iTXt", b"Title\0\2\0\0\0x"), "its damaged text 'Title'"),
        (chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 9\n00")),
         "its damaged text 'Raw profile type exif'"),
        (chunk(b"gAMA", b"\0\0\0\0"), "its damaged gAMA chunk"),
        (chunk(b"gAMA", b"\0\0\0"), "its damaged gAMA chunk"),
        (chunk(b"cHRM", bytes(31)), "its damaged cHRM chunk"),
        (chunk(b"sRGB", b"\7"), "its damaged sRGB chunk"),
        (chunk(b"cICP", bytes([9, 16, 9, 1])), "its damaged cICP chunk"),
    ],
)  # fmt: skip
def test_damaged_chunks_are_said(wrong: bytes, said: str, caplog: pytest.LogCaptureFixture) -> None:
    data = png_with((b"tEXt", b"Source\0kept"))
    picture = decode(data[:33] + wrong + data[33:], name="in")
    assert caplog.messages == [SIGNED + said + "."]
    assert picture.notes == Notes(texts=((b"tEXt", b"Source\0kept"),))


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt"])
def test_texts_that_swell_are_left_out(name: bytes, caplog: pytest.LogCaptureFixture) -> None:
    swell = zlib.compressobj(9)
    bomb = b"".join(swell.compress(bytes(2**20)) for _ in range(64)) + swell.flush()
    head = {b"zTXt": b"Title\0\0", b"iTXt": b"Title\0\1\0\0\0"}[name]
    assert len(bomb) < 2**17
    picture = decode(png_with((name, head + bomb), TEXTS[0]), name="in")
    assert picture.notes.texts == TEXTS[:1]
    assert caplog.messages == [f"{SIGNED}its too large text 'Title'."]


def test_a_thousand_texts_that_swell_take_no_time() -> None:
    bomb = b"Title\0\0" + zlib.compress(bytes(2**22 + 1), 9)
    data = png_with(*[(b"zTXt", bomb)] * min(1000, 2**22 // len(bomb)))
    start = time.process_time()
    assert read_png(io.BytesIO(data)).notes == Notes()
    assert time.process_time() - start < 1


def test_texts_in_numbers_and_of_great_length(caplog: pytest.LogCaptureFixture) -> None:
    many = png_with(*[(b"tEXt", b"n\0%d" % i) for i in range(1200)])
    assert len(notes_of(many).texts) == 1000
    assert len(notes_of(png_with((b"tEXt", b"n\0" + b"x" * (2**22 - 2)), TEXTS[0])).texts) == 1
    assert caplog.messages == [f"{SIGNED}a text chunk too large, or one too many."] * 2


def test_exif_in_a_text_is_exif() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A maker", 6
    block = exif.tobytes()
    for kind in ("exif", "APP1"):
        picture = decode(png_with(raw_profile(kind, block)))
        assert picture.rgb.shape == (3, 13, 9)
        turned = picture.rgb.permute(1, 2, 0).numpy() * 255
        assert np.array_equal(np.rint(turned), np.rot90(RGB, -1))
        found = opened(encode(picture, "png"))
        assert found.getexif()[0x010F].rstrip("\0") == "A maker"
        assert found.getexif().get(0x0112, 1) == 1
        assert "Raw profile type exif" not in found.info
    own = decode(png_with(raw_profile("exif", block), (b"eXIf", Image.Exif().tobytes()[6:])))
    assert own.rgb.shape == (3, 9, 13)


def test_xmp_in_a_text_is_xmp() -> None:
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    for kind, head in (("xmp", b""), ("APP1", b"http://ns.adobe.com/xap/1.0/\0")):
        picture = decode(png_with(raw_profile(kind, head + packet)))
        assert picture.xmp == packet
        assert picture.notes == Notes()

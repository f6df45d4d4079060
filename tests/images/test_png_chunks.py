"""Texts and colour chunks of PNG files: kept in PNG files, and named where they are lost."""

from __future__ import annotations

import io
import time
import zlib
from pathlib import Path

import numpy as np
import png
import pytest
import torch
from PIL import Image
from tests.images.made_files import (
    CORNERS,
    GAMMA,
    LATE,
    PHOTOSHOP,
    PQ,
    RGB,
    SRGB,
    TEXTS,
    chunk,
    chunks,
    enlarged,
    large,
    opened,
    pillow,
    png_with,
    raw_profile,
    retold,
)

from pcsr_lightning.images import Metadata, Picture, decode, encode


@pytest.mark.parametrize("by_rows", [False, True])
def test_texts_of_png_stay(tmp_path: Path, by_rows: bool, caplog: pytest.LogCaptureFixture) -> None:
    """To the byte: libvips would turn their accents into pairs of other characters."""
    data = png_with(*TEXTS, raw_profile("iptc", PHOTOSHOP), after=LATE)
    found = large("png", data, tmp_path, by_rows)
    kept = [c for c in chunks(found) if c[0] in (b"tEXt", b"zTXt", b"iTXt")]
    assert kept == [*TEXTS, raw_profile("iptc", PHOTOSHOP), *LATE]
    texts = opened(found).text
    assert texts["Author"] == "A. Author" * 50
    assert texts["Copyright"] == "© Grüße"
    assert texts["parameters"] == "steps: 20"
    pixels = np.asarray(opened(found))
    assert np.array_equal(pixels, np.tile(RGB, (2, 2, 1)))
    assert caplog.messages == []


def test_chunks_go_into_files_of_megabytes() -> None:
    """What is behind them moves in pieces."""
    rgb = torch.rand(3, 700, 1100, generator=torch.Generator().manual_seed(0))
    picture = Picture(rgb, metadata=Metadata(png_chunks=TEXTS))
    data = encode(picture, "png")
    assert len(data) > 2**21
    assert set(TEXTS) <= set(chunks(data))
    assert torch.equal(decode(data).rgb, decode(encode(Picture(rgb), "png")).rgb)


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("colour", [(GAMMA,), (GAMMA, CORNERS), (PQ, GAMMA), SRGB, (PQ,)])
def test_colour_chunks_of_png_stay_and_pixels_too(
    colour: tuple[tuple[bytes, bytes], ...], tmp_path: Path, by_rows: bool
) -> None:
    """Without them, linear or HDR pixels would be shown in wrong colours."""
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


@pytest.mark.parametrize("name", [b"tEXt", b"cHRM"])
@pytest.mark.parametrize(
    ("data", "broken"),
    [(b"Title\0abc", True), (b"no end", False), (b"\0nameless", False), (b"\x1b[2J\0x", False)],
)
def test_damaged_chunks_are_said(
    name: bytes, data: bytes, broken: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong checksum or length, no keyword, and a keyword that would steer a terminal."""
    wrong = chunk(name, data)
    wrong = wrong[:-1] + bytes([wrong[-1] ^ broken])
    whole = png_with((b"tEXt", b"Source\0kept"))
    picture = decode(whole[:33] + wrong + whole[33:])
    assert picture.metadata.png_chunks == ((b"tEXt", b"Source\0kept"),)
    encode(picture, "png", name="out")
    said = f"out: not carried over: a damaged or too large {name.decode()} chunk."
    assert caplog.messages == [said]


def test_texts_in_numbers_and_of_great_length() -> None:
    """Texts that would swell are not unpacked, and those beyond 4 MiB are not held."""
    swell = chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(2**22 + 1), 9))
    whole = png_with()
    start = time.process_time()
    picture = decode(whole[:33] + swell * 2000 + whole[33:])
    assert time.process_time() - start < 5
    assert sum(len(data) for _, data in picture.metadata.png_chunks) <= 2**22
    assert picture.metadata.left_out == ("a damaged or too large zTXt chunk",)


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


@pytest.mark.parametrize("format_", ["jpg", "webp", "tif", "bmp", "avif"])
def test_what_png_loses_elsewhere(format_: str, caplog: pytest.LogCaptureFixture) -> None:
    def said(*chunks: tuple[bytes, bytes]) -> list[str]:
        caplog.clear()
        encode(decode(png_with(*chunks)), format_, name="out")
        return [message.removeprefix("out: not carried over: ") for message in caplog.messages]

    texts = "PNG texts (Title, Author, Copyright, Comment and 1 more)"
    both = said(*TEXTS, *LATE, GAMMA, CORNERS)
    assert both == [f"{texts}, colour chunks (gAMA, cHRM)."]
    assert said(*SRGB) == []
    assert said(*SRGB[1:]) == []
    assert said((b"cICP", bytes([1, 13, 0, 1])), GAMMA) == []
    assert said(PQ, GAMMA) == ["colour chunks (cICP)."]


@pytest.mark.parametrize("by_rows", [False, True])
def test_colour_codes_of_avif(
    by_rows: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """PNG holds them; libvips writes none into AVIF, which is said."""
    data = retold(pillow("AVIF"), 12, 16)
    assert (b"cICP", bytes([12, 16, 0, 1])) in chunks(large("png", data, tmp_path, by_rows))
    assert caplog.messages == []
    large("avif", data, tmp_path, by_rows)
    [line] = caplog.messages
    assert line.endswith(": not carried over: colour chunks (cICP).")


@pytest.mark.parametrize("codes", [(1, 13), (2, 2), (1, 2), (2, 13), (300, 16)])
def test_codes_that_tell_nothing_new(codes: tuple[int, int]) -> None:
    assert decode(retold(pillow("AVIF"), *codes)).metadata.png_chunks == ()

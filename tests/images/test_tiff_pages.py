"""TIFF files: which page is the picture, which are raw files, and what a fourth channel is."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.images.made_files import PHOTOSHOP, opened, pillow, refused, tiff
from tests.images.matrix_inputs import profile

from pcsr_lightning.images import Picture, decode, encode

FULL = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
SMALL = np.full((6, 8, 3), 128, np.uint8)
CFA, LINEAR_RAW = 32803, 34892
DNG = (50706, 1, 4, bytes([1, 4, 0, 0]), True)


def pages(*written: tuple[Any, dict[str, Any]], **options: Any) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **options) as writer:
        for array, said in written:
            writer.write(array, **({"photometric": "rgb", "metadata": None} | said))
    return file.getvalue()


def pixels(picture: Picture) -> Any:
    return np.rint(picture.rgb.permute(1, 2, 0).numpy() * 255)


REDUCED = {"subfiletype": 1}
OLD_REDUCED = {"extratags": [(255, 3, 1, 2, True)]}
FILES = {
    "thumbnail first": pages((SMALL, REDUCED), (FULL, {})),
    "big-endian": pages((SMALL, REDUCED), (FULL, {}), byteorder=">"),
    "BigTIFF": pages((SMALL, REDUCED), (FULL, {}), bigtiff=True),
    "old tag": pages((SMALL, OLD_REDUCED), (FULL, {})),
    "SubIFD": pages((SMALL, REDUCED | {"subifds": 1}), (FULL, {})),
    "SubIFDs": pages((SMALL, REDUCED | {"subifds": 2}), (SMALL[:3], REDUCED), (FULL, {})),
    "mask first": pages((SMALL[..., 0] > 200, {"photometric": 4, "subfiletype": 4}), (FULL, {})),
    "pyramid": pages((FULL, {"subifds": 1}), (SMALL, REDUCED)),
    "thumbnail last": pages((FULL, {}), (SMALL, REDUCED)),
    "only a thumbnail": pages((FULL, REDUCED)),
}


@pytest.mark.parametrize("name", FILES)
def test_the_full_picture_is_read(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert np.array_equal(pixels(decode(FILES[name])), FULL)
    assert caplog.messages == []


def test_of_several_full_pictures_the_first_is_read(caplog: pytest.LogCaptureFixture) -> None:
    data = pages((SMALL, REDUCED), (FULL, {}), (255 - FULL, {}))
    assert np.array_equal(pixels(decode(data, name="in")), FULL)
    assert caplog.messages == ["in: holds several frames or pages; only the first was read."]


def test_the_full_picture_keeps_what_the_first_page_says() -> None:
    tags = [(0x010F, 2, 0, "A maker", True), (0x0112, 3, 1, 6, True)]
    said = REDUCED | {"subifds": 1, "extratags": tags}
    picture = decode(pages((SMALL, said), (FULL, {"resolution": (254, 508)})))
    assert np.array_equal(pixels(picture), np.rot90(FULL, -1))
    assert picture.metadata.resolution == pytest.approx((20, 10))
    assert opened(encode(picture, "jpg")).getexif()[0x010F].rstrip("\0") == "A maker"


def test_blocks_of_the_first_page_are_those_of_the_picture() -> None:
    xmp, icc = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>", profile(False)
    tags = [(700, 7, len(xmp), xmp, True), (34377, 7, len(PHOTOSHOP), PHOTOSHOP, True)]
    said = REDUCED | {"subifds": 1, "extratags": tags, "iccprofile": icc}
    found = decode(pages((SMALL, said), (FULL, {}))).metadata
    assert (found.xmp, found.iptc, found.icc) == (xmp, PHOTOSHOP, icc)


def test_pages_in_a_circle() -> None:
    data = bytearray(pages((SMALL, REDUCED), (FULL, REDUCED)))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        first, second = (page.offset for page in file.pages)
    after = second + 2 + 12 * int.from_bytes(data[second : second + 2], "little")
    data[after : after + 4] = first.to_bytes(4, "little")
    assert np.array_equal(pixels(decode(bytes(data))), SMALL)


def raw(photometric: int, *tags: Any) -> bytes:
    """A preview, and what the sensor saw."""
    said = REDUCED | {"subifds": 1, "extratags": list(tags)}
    planes = FULL if photometric == LINEAR_RAW else FULL[..., 0]
    kind = {"photometric": photometric}
    kind |= {"planarconfig": "contig"} if photometric == LINEAR_RAW else {}
    return pages((SMALL, said), (planes.astype(np.uint16), kind))


RAW_FILES = {
    "DNG": raw(CFA, DNG),
    "NEF": raw(CFA, (0x010F, 2, 0, "NIKON CORPORATION", True)),
    "ARW": raw(CFA, (0x010F, 2, 0, "SONY", True)),
    "camera's": raw(CFA),
    "CR2": b"II*\0\x10\0\0\0CR\2\0" + bytes(99),
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(99),
    "ORF": b"IIRO\x08\0\0\0" + bytes(99),
    "RW2": b"IIU\0\x18\0\0\0" + bytes(99),
    "RAF": b"FUJIFILMCCD-RAW 0201" + bytes(99),
}


@pytest.mark.parametrize("kind", RAW_FILES)
def test_raw_files_are_refused_by_name(kind: str) -> None:
    message = refused(RAW_FILES[kind])
    assert f"(a {kind} raw file; develop it" in message
    assert "damaged" not in message


def test_raw_data_in_the_first_page() -> None:
    data = pages((FULL[..., 0], {"photometric": CFA, "extratags": [DNG]}))
    assert "a DNG raw file" in refused(data)


@pytest.mark.parametrize("name", ["thumbnail_page_first", "full_picture_in_subifd"])
def test_the_files_of_the_report(name: str, shared: Path) -> None:
    data = (shared / "faults" / f"04_{name}.tif").read_bytes()
    assert decode(data).rgb.shape == (3, 48, 64)
    assert "a DNG raw file" in refused((shared / "faults" / "04_raw.dng").read_bytes())


# A channel beyond the colours

UNSAID, ALPHA = {"extrasamples": ["unspecified"]}, {"extrasamples": ["unassalpha"]}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [False, True])
def test_an_empty_channel_is_no_transparency(dtype: type[np.generic], grey: bool) -> None:
    colours = FULL[..., :1] if grey else FULL
    empty = np.concatenate([colours, np.zeros_like(FULL[..., :1])], 2).astype(dtype)
    kind: dict[str, Any] = {"photometric": "minisblack" if grey else "rgb", "planarconfig": 1}
    picture = decode(tiff(empty, metadata=None, **kind, **UNSAID))
    assert picture.alpha is None
    assert picture.grey == grey
    top = np.iinfo(dtype).max
    found = np.rint(picture.rgb.permute(1, 2, 0).numpy().astype(float) * top)
    assert np.array_equal(found, np.broadcast_to(colours, FULL.shape))
    hidden = decode(tiff(empty, metadata=None, **kind, **ALPHA))
    assert hidden.alpha is not None
    assert hidden.alpha.max() == 0


def test_a_channel_with_something_in_it_is_transparency() -> None:
    """Many programs do not say that it is, and a mask is all that it can be."""
    filled = np.concatenate([FULL, np.arange(768, dtype=np.uint16).reshape(24, 32, 1) // 3], 2)
    picture = decode(tiff(filled.astype(np.uint8), photometric="rgb", metadata=None, **UNSAID))
    assert picture.alpha is not None
    assert np.array_equal(np.rint(picture.alpha[0].numpy() * 255), filled[..., 3])


@pytest.mark.parametrize("filled", [False, True])
def test_an_empty_channel_of_bmp_is_no_transparency(filled: bool) -> None:
    """Of a file whose header says which bits are transparency."""
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 32, 24, 1, 32, 3, 0, 0, 0, 0, 0) + masks
    alpha = np.full((24, 32, 1), 99 * filled, np.uint8)
    body = np.concatenate([FULL[::-1, :, ::-1], alpha], 2).tobytes()
    header = header.ljust(108, b"\0")
    data = b"BM" + struct.pack("<IHHI", 14 + 108 + len(body), 0, 0, 14 + 108) + header + body
    picture = decode(data)
    assert np.array_equal(pixels(picture), FULL)
    assert (picture.alpha is not None) == filled


@pytest.mark.parametrize("as_integers", [False, True])
def test_premultiplied_avif_is_made_straight(as_integers: bool) -> None:
    alpha = np.tile(np.linspace(60, 255, 32).astype(np.uint8), (24, 1))
    y, x = np.mgrid[:24, :32]
    rgb = np.stack([40 + 6 * x, 30 + 8 * y, 200 - 2 * x - 2 * y], -1).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(np.dstack([rgb, alpha]))
    options: dict[str, Any] = {"quality": 100, "subsampling": "4:4:4"}
    straight = decode(pillow("AVIF", image, **options), as_integers=as_integers)
    data = pillow("AVIF", image, alpha_premultiplied=True, **options)
    found = decode(data, as_integers=as_integers)
    assert found.alpha is not None
    assert straight.alpha is not None
    assert found.rgb.dtype == straight.rgb.dtype
    top = 255 if as_integers else 1
    off = (found.rgb.float() - straight.rgb.float()).abs() / top
    assert off.mean() < 2 / 255
    assert off.max() < 12 / 255
    assert (found.alpha.float() - straight.alpha.float()).abs().max() <= 2 * top / 255

"""What describes the old file is brought up to date, or taken out and its loss said."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from tests.images.made_files import (
    RGB,
    chunk,
    chunks,
    enlarged,
    jpeg_with,
    large,
    opened,
    pillow,
    png_with,
    resource,
    tiff,
)

from pcsr_lightning.images import Metadata, Picture, decode, encode, read

ITXT_OF_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
GOOGLE = "http://ns.google.com/photos/1.0"
PANO = f'xmlns:GPano="{GOOGLE}/panorama/"'
REGIONS = (
    'xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/" '
    'xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#" '
    'xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#"'
)


def packet(attributes: str, inner: str = "") -> bytes:
    return (
        f'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF {RDF}><rdf:Description rdf:about="" {attributes}>{inner}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
    ).encode()


def renewed(xmp: bytes, format_: str = "png", turned: int = 1) -> bytes:
    """The packet in a picture twice as wide and three times as high."""
    exif = Image.Exif()
    exif[0x0112] = turned
    data = pillow("PNG", exif=exif)
    data = data[:33] + chunk(b"iTXt", ITXT_OF_XMP + xmp) + data[33:]
    small = decode(data)
    h, w = small.rgb.shape[1:]
    found = decode(encode(small.upscaled(torch.zeros(3, 3 * h, 2 * w), None), format_, name="out"))
    assert found.metadata.xmp is not None
    return found.metadata.xmp


def lost(caplog: pytest.LogCaptureFixture) -> str:
    """What the one line of losses names."""
    [line] = caplog.messages
    return line.partition(": not carried over: ")[2]


def test_sizes_of_a_panorama_grow(caplog: pytest.LogCaptureFixture) -> None:
    attributes = (
        "GPano:ProjectionType='equirectangular' GPano:FullPanoWidthPixels=\"128\" "
        'GPano:FullPanoHeightPixels="64" GPano:CroppedAreaImageWidthPixels="13"\n'
        "GPano:CroppedAreaImageHeightPixels = '9' GPano:PoseHeadingDegrees=\"90.5\""
    )
    inner = (
        "<GPano:CroppedAreaLeftPixels> 32 </GPano:CroppedAreaLeftPixels>"
        "<GPano:CroppedAreaTopPixels>8</GPano:CroppedAreaTopPixels>"
    )
    expected = (
        "GPano:ProjectionType='equirectangular' GPano:FullPanoWidthPixels=\"256\" "
        'GPano:FullPanoHeightPixels="192" GPano:CroppedAreaImageWidthPixels="26"\n'
        "GPano:CroppedAreaImageHeightPixels = '27' GPano:PoseHeadingDegrees=\"90.5\""
    )
    grown = inner.replace(" 32 ", "64").replace("8", "24")
    found = renewed(packet(f"{PANO} {attributes}", inner))
    assert found == packet(f"{PANO} {expected}", grown)
    assert caplog.messages == []


def test_another_prefix_means_the_same() -> None:
    before = packet(f'{PANO.replace("GPano", "p")} p:FullPanoWidthPixels="128" GPano:x="1"')
    assert renewed(before) == before.replace(b'"128"', b'"256"')


@pytest.mark.parametrize("unit", ["normalized", "pixel"])
def test_regions_of_faces(unit: str, caplog: pytest.LogCaptureFixture) -> None:
    place = "0.5", "0.25", "0.125", "1"
    new = place
    if unit == "pixel":
        place, new = ("6", "4", "3", "2.5"), ("12", "12", "6", "7.5")
    text = (
        '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="13" '
        'stDim:h="9" stDim:unit="pixel"/><mwg-rs:RegionList><rdf:Bag><rdf:li><rdf:Description>'
        '<mwg-rs:Area stArea:x="{}" stArea:y="{}" stArea:w="{}" stArea:h="{}" stArea:unit="'
        f'{unit}"/></rdf:Description></rdf:li></rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>'
        '<x:MaxPageSize stDim:w="210" stDim:h="297" stDim:unit="mm"/>'
    )
    expected = text.format(*new).replace('w="13"', 'w="26"').replace('h="9"', 'h="27"')
    assert renewed(packet(REGIONS, text.format(*place))) == packet(REGIONS, expected)
    assert caplog.messages == []
    renewed(packet(REGIONS, text.format(*place)), turned=6)
    assert lost(caplog) == "regions of faces."


def test_resolution_and_format_of_xmp() -> None:
    before = packet(
        'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'tiff:XResolution="720000/10000" tiff:YResolution="300/1" dc:format="image/jpeg"'
    )
    found = renewed(before, "tif")
    for old, new in (("720000/10000", "144/1"), ("300/1", "900/1"), ("image/jpeg", "image/tiff")):
        before = before.replace(old.encode(), new.encode())
    assert found == before


CONTAINER = f'xmlns:Container="{GOOGLE}/container/" xmlns:Item="{GOOGLE}/container/item/"'
CAMERA = f'xmlns:GCamera="{GOOGLE}/camera/"'
ITEM = (
    '<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="{}" Item:Length="9"/></rdf:li>'
)
STALE = {
    "motion photo": (
        f'{CAMERA} {CONTAINER} GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1"',
        ("Primary", "MotionPhoto"),
        "video of a motion photo.",
    ),
    "micro video": (
        f'{CAMERA} GCamera:MicroVideo="1" GCamera:MicroVideoOffset="9"',
        (),
        "video of a motion photo.",
    ),
    "gain map": (
        f'{CONTAINER} xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"',
        ("Primary", "GainMap"),
        "gain map for brighter screens.",
    ),
    "depth map": (
        f'xmlns:GDepth="{GOOGLE}/depthmap/" GDepth:Format="RangeLinear" GDepth:Near="1"',
        (),
        "depth map.",
    ),
    "of another kind": (CONTAINER, ("Primary", "Scan"), "what it called Scan."),
}


@pytest.mark.parametrize("name", STALE)
@pytest.mark.parametrize("format_", ["png", "jpg", "webp", "tif", "avif"])
def test_claims_of_what_is_gone_go(
    name: str, format_: str, caplog: pytest.LogCaptureFixture
) -> None:
    attributes, semantics, said = STALE[name]
    items = "".join(ITEM.format(semantic) for semantic in semantics)
    directory = f"<Container:Directory><rdf:Seq>{items}</rdf:Seq></Container:Directory>"
    kept = 'xmlns:b="urn:b" b:c="d"'
    found = renewed(packet(f"{attributes} {kept}", directory * bool(semantics) + "<b:e/>"), format_)
    spaces = " ".join(word for word in attributes.split(" ") if word.startswith("xmlns"))
    assert found == packet(f"{spaces} {kept}", "<b:e/>")
    assert lost(caplog) == said


@pytest.mark.parametrize(
    "xmp",
    [
        b"<a><b></a>",
        b"no XML",
        "<a b='1'/>".encode("utf-16"),
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
    ],
)
def test_damaged_xmp_is_said(xmp: bytes, caplog: pytest.LogCaptureFixture) -> None:
    picture = Picture(torch.rand(3, 6, 8), metadata=Metadata(xmp=xmp))
    assert decode(encode(picture, "png", name="out")).metadata.xmp is None
    assert lost(caplog) == "XMP (damaged)."


def test_deep_and_long_xmp_takes_no_long_time() -> None:
    deep = b"<a>" * 100_000 + b"</a>" * 100_000
    wide = b"<a>" + b'<b tiff:ImageWidth="1"/>' * 50_000 + b"</a>"
    for xmp in (deep, wide):
        picture = Picture(torch.rand(3, 6, 8), metadata=Metadata(xmp=xmp))
        found = decode(encode(picture, "png")).metadata.xmp
        assert found == xmp.replace(b'"1"', b'"8"')


def test_what_follows_a_jpeg_is_said(caplog: pytest.LogCaptureFixture) -> None:
    encode(decode(jpeg_with() + b"\0" * 9), "jpg", name="out")
    assert caplog.messages == []
    encode(decode(jpeg_with() + b"MotionPhoto_Data and a video" * 99), "jpg", name="out")
    assert lost(caplog) == "what follows the picture in its file."


def test_stereo_pairs_are_said(caplog: pytest.LogCaptureFixture) -> None:
    second = Image.fromarray(RGB)
    encode(decode(pillow("MPO", save_all=True, append_images=[second])), "jpg", name="out")
    assert lost(caplog) == "further pictures."


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (b"infe\2\0\0\1\0\5\0\0tmap", "gain map for brighter screens."),
        (b"urn:com:photo:aux:hdrgainmap\0", "gain map for brighter screens."),
        (b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth\0", "depth map."),
    ],
)
def test_what_is_beside_an_avif_is_said(
    mark: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    box = struct.pack(">I4s", 8 + len(mark), b"free") + mark
    encode(decode(pillow("AVIF") + box), "avif", name="out")
    assert lost(caplog) == said


# EXIF and Photoshop


@pytest.mark.parametrize("format_", ["png", "jpg", "webp", "tif", "avif"])
def test_places_in_exif_grow(format_: str, caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9214] = (6, 4, 2, 3)
    exif.get_ifd(0x8769)[0xA214] = (6, 4)
    exif[0x010F] = "A maker"
    for turned in (1, 6):
        exif[0x0112] = turned
        small = decode(pillow("JPEG", exif=exif))
        h, w = small.rgb.shape[1:]
        grown = small.upscaled(torch.zeros(3, 3 * h, 2 * w), None)
        inner = opened(encode(grown, format_, name="out")).getexif().get_ifd(0x8769)
        if turned == 1:
            assert (inner[0x9214], inner[0xA214]) == ((12, 12, 4, 9), (12, 12))
            assert caplog.messages == []
        else:
            assert not {0x9214, 0xA214} & set(inner)
            assert lost(caplog) == "SubjectArea, SubjectLocation."
    caplog.clear()
    exif[0x0112], exif.get_ifd(0x8769)[0x9214] = 1, (60_000, 4)
    grown = decode(pillow("JPEG", exif=exif)).upscaled(torch.zeros(3, 27, 26), None)
    inner = opened(encode(grown, format_, name="out")).getexif().get_ifd(0x8769)
    assert inner.get(0x9214) == ((120_000, 12) if format_ == "tif" else None)
    assert format_ == "tif" or lost(caplog) == "SubjectArea."


@pytest.mark.parametrize("format_", ["png", "jpg", "webp", "tif", "avif"])
@pytest.mark.parametrize("turned", [1, 8])
def test_sizes_in_exif_are_those_of_the_picture(format_: str, turned: int) -> None:
    """Some cameras write them three times, and how many of them fit on the sensor."""
    exif = Image.Exif()
    exif[0x0100], exif[0x0101], exif[0x010F], exif[0x0112] = 13, 9, "A maker", turned
    inner = exif.get_ifd(0x8769)
    inner[0xA20E], inner[0xA20F], inner[0xA210] = IFDRational(201, 2), IFDRational(50), 2
    inner[0xA005] = {1: "R98", 0x1001: 13, 0x1002: 9}
    small = decode(pillow("JPEG", exif=exif))
    h, w = small.rgb.shape[1:]
    data = encode(small.upscaled(torch.zeros(3, 3 * h, 2 * w), None), format_)
    found = opened(data).getexif()
    inner = found.get_ifd(0x8769)
    plane = (201, 150) if turned == 1 else (100, 301.5)
    assert (inner[0xA20E], inner[0xA20F]) == pytest.approx(plane)
    assert found.get(0x0100, 2 * w) == 2 * w
    assert found.get(0x0101, 3 * h) == 3 * h
    assert found.get_ifd(0xA005) == {1: "R98"}


@pytest.mark.parametrize("dpi", [None, (100, 50)])
def test_photoshop_s_resources(dpi: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Thumbnails go unsaid, as EXIF's do; the resolution is Photoshop's own, in dots per inch."""
    fixed = struct.pack(">i4si4s", 100 << 16, b"\0\1\0\2", 50 << 16, b"\0\1\0\2")
    resources = (
        *(resource(1034, b"\1"), resource(1035, b"https://example.org", b"odd")),
        *(resource(0x03ED, fixed), resource(0x040C, b"thumb"), resource(0x0408, b"guides")),
    )
    data = pillow("JPEG", **({} if dpi is None else {"dpi": dpi}))
    data = data[:20] + _segment(b"Photoshop 3.0\0" + b"".join(resources)) + data[20:]
    small = decode(data)
    found = opened(encode(small.upscaled(torch.zeros(3, 27, 26), None), "jpg", name="out"))
    kept = found.info["photoshop"]
    assert (kept[1034], kept[1035]) == (b"\1", b"https://example.org")
    assert set(kept) == {1034, 1035} | (set() if dpi is None else {0x03ED})
    if dpi is not None:
        told = kept[0x03ED]["XResolution"], kept[0x03ED]["YResolution"]
        assert told == pytest.approx((200, 150), abs=1e-3)
    assert lost(caplog) == "Photoshop's guides."


def _segment(body: bytes) -> bytes:
    return struct.pack(">BBH", 255, 0xED, len(body) + 2) + body


# PNG: what is behind the pixels, and pixels that are not square


@pytest.mark.parametrize("packed", [False, True])
def test_exif_and_xmp_behind_the_pixels_of_png(packed: bool) -> None:
    exif, xmp = Image.Exif(), packet('xmlns:b="urn:b" b:c="d"')
    exif[0x013B], exif[0x0112] = "A person", 6
    text = b"XML:com.adobe.xmp\0" + bytes([packed, 0]) + b"\0\0"
    text += zlib.compress(xmp) if packed else xmp
    data = png_with(after=((b"eXIf", exif.tobytes()[6:]), (b"iTXt", text)))
    picture = decode(data)
    assert picture.rgb.shape == (3, 13, 9)
    assert picture.metadata.xmp == xmp
    found = opened(encode(picture, "png"))
    assert found.getexif()[0x013B].rstrip("\0") == "A person"
    assert found.getexif().get(0x0112, 1) == 1


def test_damaged_exif_behind_the_pixels_is_not_blessed() -> None:
    wrong = bytearray(chunk(b"eXIf", Image.Exif().tobytes()[6:]))
    wrong[-1] ^= 1
    data = pillow("PNG")
    assert decode(data[:-12] + bytes(wrong) + data[-12:]).metadata.exif is None


ASPECT = (b"pHYs", struct.pack(">IIB", 2, 1, 0))


@pytest.mark.parametrize("by_rows", [False, True])
def test_pixels_that_are_not_square(
    by_rows: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    narrow_jpeg = bytearray(pillow("JPEG"))
    assert narrow_jpeg[6:11] == b"JFIF\0"
    narrow_jpeg[13:18] = struct.pack(">BHH", 0, 2, 1)
    options: Any = {"resolution": (2, 1), "resolutionunit": 1, "metadata": None}
    for data in (png_with(ASPECT), bytes(narrow_jpeg), tiff(RGB, photometric="rgb", **options)):
        assert ASPECT in chunks(large("png", data, tmp_path, by_rows))
        page = tifffile.TiffFile(io.BytesIO(large("tif", data, tmp_path, by_rows))).pages[0]
        x, y, unit = (page.tags[tag].value for tag in (282, 283, 296))
        assert (x[0] / x[1] / (y[0] / y[1]), unit) == (pytest.approx(2), 1)
        assert caplog.messages == []
        large("jpg", data, tmp_path, by_rows)
        assert lost(caplog) == "the aspect ratio of pixels."
        caplog.clear()


@pytest.mark.parametrize(("across", "down"), [(0, 1), (1, 0), (1, 1), (2**32 - 1, 1), (1, 2**31)])
def test_odd_aspects(across: int, down: int) -> None:
    found = encode(enlarged(png_with((b"pHYs", struct.pack(">IIB", across, down, 0)))), "png")
    assert (b"pHYs", struct.pack(">IIB", 1, 1, 0)) in chunks(found)


# TIFF files of maps and microscopes

MATRIX = (5.0, 1.0, 0.0, 100.0, -2.0, -4.0, 0.0, 900.0, *[0.0] * 7, 1.0)


def keys(raster_type: int) -> tuple[int, ...]:
    return (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, raster_type, 3072, 0, 1, 32633)


def geo(raster_type: int, *more: Any, matrix: bool = False, **options: Any) -> bytes:
    tags: list[Any] = [(34735, 3, 16, keys(raster_type), True)]
    if matrix:
        tags.append((34264, 12, 16, MATRIX, True))
    else:
        tags.append((33550, 12, 3, (10.0, 20.0, 0.0), True))
        tags.append((33922, 12, 6, (1.0, 2.0, 0.0, 500_000.0, 5_200_000.0, 0.0), True))
    return tiff(RGB, photometric="rgb", metadata=None, extratags=[*tags, *more], **options)


def world(tags: dict[int, Any], x: float, y: float) -> tuple[float, float]:
    """Where the point is that lies so many pixels from the first one's upper left corner."""
    half = 0.5 if tags[34735][11] == 2 else 0.0
    i, j = x - half, y - half
    if 34264 in tags:
        m = tags[34264]
        return m[0] * i + m[1] * j + m[3], m[4] * i + m[5] * j + m[7]
    point, scale = tags[33922], tags[33550]
    return point[3] + (i - point[0]) * scale[0], point[4] - (j - point[1]) * scale[1]


def tags_of(data: bytes) -> dict[int, Any]:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return {tag.code: tag.value for tag in file.pages[0].tags}


@pytest.mark.parametrize("raster_type", [1, 2])
@pytest.mark.parametrize("matrix", [False, True])
def test_a_map_stays_in_its_place(
    raster_type: int, matrix: bool, caplog: pytest.LogCaptureFixture
) -> None:
    data = geo(raster_type, matrix=matrix)
    small = decode(data)
    grown = tags_of(encode(small.upscaled(torch.zeros(3, 27, 26), None), "tif", name="out"))
    assert grown[34735] == keys(raster_type)
    for x, y in ((0, 0), (13, 0), (4.5, 7.25)):
        assert world(grown, 2 * x, 3 * y) == pytest.approx(world(tags_of(data), x, y))
    assert caplog.messages == []


def test_a_map_that_cannot_stay_is_said(caplog: pytest.LogCaptureFixture) -> None:
    names = "GeoKeyDirectoryTag, ModelPixelScaleTag, ModelTiepointTag."
    no_data = (42113, 2, 0, "0", True)
    encode(decode(geo(1, no_data)), "tif", name="out")
    assert lost(caplog) == "GDAL_NODATA."
    caplog.clear()
    encode(decode(geo(1)), "png", name="out")
    assert lost(caplog) == names
    caplog.clear()
    turned = encode(decode(geo(1, (274, 3, 1, 6, True))), "tif", name="out")
    assert lost(caplog) == names
    assert not {34735, 33550, 33922} & set(tags_of(turned))
    caplog.clear()
    wrong = (33922, 12, 5, (1.0, 2.0, 0.0, 5.0, 5.0), True)
    data = tiff(RGB, photometric="rgb", metadata=None, extratags=[wrong])
    encode(decode(data), "tif", name="out")
    assert lost(caplog) == "ModelTiepointTag."


def test_the_scale_of_a_microscope_stays(caplog: pytest.LogCaptureFixture) -> None:
    options: Any = {"imagej": True, "resolution": (1 / 0.65, 1 / 0.65), "metadata": {"unit": "um"}}
    small = decode(tiff(RGB, **options))
    grown = small.upscaled(torch.zeros(3, 18, 26), None)
    with tifffile.TiffFile(io.BytesIO(encode(grown, "tif", name="out"))) as file:
        assert file.is_imagej
        assert file.imagej_metadata is not None
        assert file.imagej_metadata["unit"] == "um"
        across = file.pages[0].tags[282].value
        assert file.pages[0].tags[296].value == 1
        assert np.array_equal(file.asarray(), np.zeros((18, 26, 3)))
    assert across[0] / across[1] == pytest.approx(2 / 0.65, rel=1e-5)
    assert caplog.messages == []
    encode(grown, "png", name="out")
    assert lost(caplog) == "a resolution in ImageJ's unit."


def test_descriptions_of_old_pixels_are_said(caplog: pytest.LogCaptureFixture) -> None:
    data = tiff(RGB, photometric="rgb", description="<OME xmlns='urn:x'/>", metadata=None)
    assert 270 not in tags_of(encode(decode(data), "tif", name="out"))
    assert lost(caplog) == "ImageDescription."


# The files of the report


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("06_stereo.jpg", "further pictures."),
        ("06_motion_photo.jpg", "video of a motion photo."),
        ("06_ultra_hdr.jpg", "gain map for brighter screens."),
        ("07_panorama.jpg", None),
        ("08_exif_behind_pixels.png", None),
        ("08_geotiff.tif", "GDAL_NODATA."),
        ("08_imagej.tif", None),
        ("08_photoshop.jpg", None),
        ("08_pixel_aspect.png", None),
    ],
)
def test_the_files_of_the_report(
    name: str, said: str | None, shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = read(shared / "faults" / name)
    data = encode(small.upscaled(torch.zeros(3, 192, 256), None), Path(name).suffix, name="out")
    if said is None:
        assert caplog.messages == []
    else:
        assert lost(caplog) == said
    xmp = decode(data).metadata.xmp or b""
    assert b"MotionPhoto" not in xmp
    assert b"GainMap" not in xmp
    if name == "07_panorama.jpg":
        for value in (512, 256, 256, 192, 128, 32):
            assert f'Pixels="{value}"'.encode() in xmp

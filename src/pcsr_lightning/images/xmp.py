"""XMP packets brought up to date: sizes in pixels, and what lay beside the picture in its old file.

libvips carries the packet without looking into it. Without this it would go on claiming the old
size, or a video or gain map that is no longer there. Expat parses it; what does not change stays as
it is to the byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from xml.parsers import expat

from pcsr_lightning.images.growth import Growth, as_fraction

_GOOGLE = "http://ns.google.com/photos/"
_PREFIXES = {
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/xap/1.0/sType/Dimensions#": "stDim",
    "http://ns.adobe.com/xmp/sType/Area#": "stArea",
    "http://ns.adobe.com/xmp/note/": "xmpNote",
    "http://ns.adobe.com/hdr-gain-map/1.0/": "hdrgm",
    "http://ns.apple.com/HDRGainMap/1.0/": "HDRGainMap",
    "http://ns.microsoft.com/photo/1.2/": "MP",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": "Iptc4xmpExt",
    "http://www.metadataworkinggroup.com/schemas/regions/": "mwg-rs",
    "http://www.dji.com/drone-dji/1.0/": "drone-dji",
    f"{_GOOGLE}1.0/panorama/": "GPano",
    f"{_GOOGLE}1.0/container/": "Container",
    f"{_GOOGLE}1.0/depthmap/": "GDepth",
    f"{_GOOGLE}1.0/image/": "GImage",
    f"{_GOOGLE}1.0/audio/": "GAudio",
}
_DYNAMIC_DEPTH = f"{_GOOGLE}dd/"

# What is taken out, and what is said of it: namespaces, then properties.
_GAIN_MAP, _VIDEO, _DEPTH = "gain map for brighter screens", "video of a motion photo", "depth map"
_GONE = {
    "hdrgm": _GAIN_MAP, "HDRGainMap": _GAIN_MAP, "GDepth": _DEPTH, "GImage": "a second picture",
    "GAudio": "sound", "xmp:Thumbnails": "", "xmp:PageInfo": "", "xmpNote:HasExtendedXMP": "",
    "drone-dji:DewarpData": "DewarpData",
}  # fmt: skip
_GONE_IF_TURNED = {
    "GPano": "sizes of a panorama", "mwg-rs:Regions": "regions of faces",
    "MP:RegionInfo": "regions of faces", "Iptc4xmpExt:ImageRegion": "regions",
    "exif:SubjectArea": "SubjectArea", "exif:SubjectLocation": "SubjectLocation",
}  # fmt: skip
_GONE_WITH_THE_FILE = re.compile(r"[^:]+:(MotionPhoto|MicroVideo)")
_BESIDE = re.compile(rb"Semantic\W+(\w+)")  # in the directory of what was in the old file
_MEANINGS = {"Primary": "", "MotionPhoto": _VIDEO, "GainMap": _GAIN_MAP, "Depth": _DEPTH}

_ACROSS = re.compile(
    r"GPano:(CroppedArea|FullPano|LargestValid)\w*(Width|Left)\w*"
    r"|(tiff:|exif:FocalPlane)XResolution|stDim:w|stArea:[xwd]|Iptc4xmpExt:rb(X|W|Rx)"
    r"|drone-dji:Calibrated(FocalLength|OpticalCenterX)"
)
_DOWN = re.compile(
    r"GPano:(CroppedArea|FullPano|LargestValid)\w*(Height|Top)\w*"
    r"|(tiff:|exif:FocalPlane)YResolution|stDim:h|stArea:[yh]|Iptc4xmpExt:rb[YH]"
    r"|drone-dji:CalibratedOpticalCenterY"
)
_NUMBER = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(?:/([1-9]\d{0,11}))?")
_SHARES = ("stArea:", "Iptc4xmpExt:")  # pixels, or parts of the picture, which are at most 1
_ATTRIBUTE = re.compile(rb"""\s+([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")
_START_TAG = re.compile(rb"<[^\s/>]+((?:%s)*)\s*/?>" % re.sub(rb"\(", b"(?:", _ATTRIBUTE.pattern))

_Gone = Callable[[str], str | None]
_Renew = Callable[[str, str, list[str]], str]


def remove_stale(xmp: bytes, growth: Growth) -> tuple[bytes, list[str]]:
    """Takes out what describes the old file alone.

    Args:
        xmp: the packet.
        growth: of the pixels since it was written.

    Returns:
        The packet, and names of what was lost with that; nothing is lost with a thumbnail.

    Raises:
        ValueError: it is not well-formed.
    """

    def gone(name: str) -> str | None:
        prefix = name.partition(":")[0]
        if prefix == "Container":
            return ""  # its entries are named by what they are
        if _GONE_WITH_THE_FILE.match(name):
            return _VIDEO
        table = _GONE if growth.turned == 1 else _GONE | _GONE_IF_TURNED
        return table.get(name, table.get(prefix))

    packet = _Packet(xmp, gone, lambda _name, text, _path: text)
    names = [name for name in packet.removed if name]
    for start, stop, _ in packet.edits:
        for found in _BESIDE.findall(xmp[start:stop]):
            meaning = found.decode()
            names.append(_MEANINGS.get(meaning, f"what it called {meaning}"))
    return packet.edited(), [name for name in dict.fromkeys(names) if name]


def renew(xmp: bytes, growth: Growth, size: tuple[int, int], media_type: str) -> bytes:
    """Brings sizes in pixels up to date, the resolution, and the format of the file.

    Args:
        xmp: the packet.
        growth: of the pixels since it was written.
        size: (h, w) of the upright picture.
        media_type: of the new file, such as image/png.

    Raises:
        ValueError: it is not well-formed.
    """
    fixed = {
        "tiff:Orientation": "1",
        "tiff:ImageWidth": str(size[1]),
        "tiff:ImageLength": str(size[0]),
        "exif:PixelXDimension": str(size[1]),
        "exif:PixelYDimension": str(size[0]),
        "dc:format": media_type,
    }

    def renewed(name: str, text: str, path: list[str]) -> str:
        if name in fixed:
            return fixed[name]
        # Those of a page to be printed have other units.
        if name.startswith("stDim:") and "mwg-rs:AppliedToDimensions" not in path:
            return text
        if _ACROSS.fullmatch(name):
            return _scaled(name, text, growth.across)
        return _scaled(name, text, growth.down) if _DOWN.fullmatch(name) else text

    return _Packet(xmp, lambda _: None, renewed).edited()


def _scaled(name: str, text: str, factor: float) -> str:
    """A whole number, a decimal or a fraction, so many times as large."""
    found = _NUMBER.fullmatch(text.strip())
    if found is None or factor == 1:
        return text
    old = Fraction(found[1]) / int(found[2] or 1)
    if name.startswith(_SHARES) and old <= 1:
        return text
    new = float(old) * factor
    if found[2]:
        return as_fraction(new)
    return f"{new:.6f}".rstrip("0") if "." in found[1] else str(round(new))


class _Packet:
    """A packet that is looked through once, from its beginning to its end.

    Args:
        xmp: the packet.
        gone: of an element's or attribute's name, what is said if it is to be taken out, which may
            be nothing; None if it stays.
        renew: of a name, its text and the elements around it, the new text.

    Attributes:
        removed: what was said of what is to be taken out.
        edits: places, and what goes there instead.

    Raises:
        ValueError: it is not well-formed, or not in UTF-8.
    """

    def __init__(self, xmp: bytes, gone: _Gone, renew: _Renew) -> None:
        self._xmp, self._gone, self._renew = xmp, gone, renew
        self.removed: list[str] = []
        self.edits: list[tuple[int, int, bytes]] = []
        self._prefixes: dict[str, str] = {}
        self._path: list[str] = []
        self._text: tuple[int, str] | None = None
        self._skipped: tuple[int, int] | None = None  # the depth and place of what is taken out
        self._parser = expat.ParserCreate("utf-8")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = _refuse
        try:
            self._parser.Parse(xmp.rstrip(b"\0"), True)
        except expat.ExpatError as error:
            raise ValueError(str(error)) from error

    def edited(self) -> bytes:
        """The packet with all edits made."""
        parts, at = [], 0
        for start, stop, new in self.edits:
            parts += [self._xmp[at:start], new]
            at = stop
        return b"".join([*parts, self._xmp[at:]])

    def _name(self, name: str) -> str:
        """A name with its namespace's usual prefix."""
        prefix, colon, local = name.partition(":")
        return f"{self._prefixes.get(prefix, prefix)}:{local}" if colon else name

    def _start(self, raw: str, attributes: dict[str, str]) -> None:
        for name, uri in attributes.items():
            if name.startswith("xmlns:"):
                usual = "GDepth" if uri.startswith(_DYNAMIC_DEPTH) else _PREFIXES.get(uri)
                self._prefixes[name[6:]] = usual or name[6:]
        self._text = None
        at, name = self._parser.CurrentByteIndex, self._name(raw)
        self._path.append(name)
        if self._skipped is not None:
            return
        said = self._gone(name)
        if said is not None:
            self.removed.append(said)
            self._skipped = len(self._path), at
            return
        tag = self._tag(at)
        for found in _ATTRIBUTE.finditer(self._xmp, tag.start(1), tag.end(1)):
            attribute = found[1].decode()
            if not attribute.startswith("xmlns"):
                self._change_attribute(found, self._name(attribute), attributes[attribute])
        if not tag[0].endswith(b"/>"):
            self._text = tag.end(), name

    def _tag(self, at: int) -> re.Match[bytes]:
        found = _START_TAG.match(self._xmp, at)
        if found is None:
            raise ValueError("its encoding is not UTF-8")
        return found

    def _end(self, _: str) -> None:
        at = self._parser.CurrentByteIndex
        if self._skipped is not None and self._skipped[0] == len(self._path):
            start, self._skipped = self._skipped[1], None
            stop = self._tag(at).end() if at == start else self._xmp.index(b">", at) + 1
            self.edits.append((start, stop, b""))
        elif self._skipped is None and self._text is not None:
            start, name = self._text
            old = self._xmp[start:at]
            if b"<" not in old and b"&" not in old:
                text = old.decode()
                self._change(start, at, text, self._renew(name, text, self._path))
        self._text = None
        self._path.pop()

    def _change_attribute(self, found: re.Match[bytes], name: str, value: str) -> None:
        said = self._gone(name)
        if said is not None:
            self.removed.append(said)
            self.edits.append((*found.span(), b""))
        else:
            start, stop = found.span(2)
            self._change(start + 1, stop - 1, value, self._renew(name, value, self._path))

    def _change(self, start: int, stop: int, old: str, new: str) -> None:
        if new != old:
            self.edits.append((start, stop, new.encode()))


def _refuse(*_: object) -> None:
    raise ValueError("it has a document type, which no packet has")

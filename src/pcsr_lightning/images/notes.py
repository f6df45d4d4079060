"""What picture files say beside pixels, profile, EXIF and XMP: captions and colour numbers.

All of it is carried as it was stored. Colour numbers are safe to carry because pixels go through
a network as they are stored, with no change of gamma or primaries.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

Chunk = tuple[bytes, bytes]
"""Name and content of a PNG chunk."""

_SRGB_GAMMA = 45455
_SRGB_CORNERS = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
_ROUNDING = 200  # of 100,000: writers round to three digits
_SRGB_CODES = (1, 13, True)
_MOST_NAMES = 4


@dataclass(frozen=True)
class Notes:
    """Captions and colour numbers of a file, each None or empty where the file has none.

    Attributes:
        iptc: caption, author, rights and the like, as IPTC-IIM records.
        comments: of a JPEG file.
        texts: PNG's tEXt, zTXt and iTXt chunks, such as title, author and copyright.
        colour: PNG's gAMA, cHRM, sRGB, mDCV and cLLI chunks.
        cicp: ITU-T H.273's codes of the primaries and the transfer function, and whether values
            take their full range; from PNG's cICP chunk or AVIF's nclx box.
    """

    iptc: bytes | None = None
    comments: tuple[bytes, ...] = ()
    texts: tuple[Chunk, ...] = ()
    colour: tuple[Chunk, ...] = ()
    cicp: tuple[int, int, bool] | None = None

    def lost(self, kept: frozenset[str], has_profile: bool) -> list[str]:
        """What a file loses that holds only some of these, in words.

        Args:
            kept: the attributes' names.
            has_profile: a colour profile is kept, which says more than gamma and primaries.
        """
        found = []
        if self.iptc is not None and "iptc" not in kept:
            found.append("IPTC")
        if self.comments and "comments" not in kept:
            found.append("comment")
        if self.texts and "texts" not in kept:
            found.append(f"PNG texts ({text_names(self.texts)})")
        gamma_counts = "colour" not in kept and not has_profile and self.cicp is None
        if gamma_counts and (other := self._other_than_srgb()):
            found.append(f"gamma or primaries ({other})")
        if self.cicp not in (None, _SRGB_CODES) and not self._cicp_fits(kept):
            found.append(f"colour codes ({self._codes()})")
        return found

    def _codes(self) -> str:
        assert self.cicp is not None
        primaries, transfer, full = self.cicp
        return f"primaries {primaries}, transfer {transfer}" + ("" if full else ", narrow range")

    def _cicp_fits(self, kept: frozenset[str]) -> bool:
        """Only PNG can say that values do not take their full range."""
        return "cicp" in kept and ("colour" in kept or bool(self.cicp and self.cicp[2]))

    def _other_than_srgb(self) -> str:
        chunks = dict(self.colour)
        if b"sRGB" in chunks:  # it goes before the others
            return ""
        wrong = [
            name.decode()
            for name, usual in ((b"gAMA", (_SRGB_GAMMA,)), (b"cHRM", _SRGB_CORNERS))
            if name in chunks and not _close(chunks[name], usual)
        ]
        return " and ".join(wrong)


def text_names(texts: tuple[Chunk, ...]) -> str:
    """The keywords of text chunks, the first few."""
    names = list(dict.fromkeys(data.partition(b"\0")[0].decode("latin-1") for _, data in texts))
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _close(data: bytes, usual: tuple[int, ...]) -> bool:
    values = struct.unpack(f">{len(data) // 4}I", data)
    return all(abs(a - b) <= _ROUNDING for a, b in zip(values, usual, strict=True))

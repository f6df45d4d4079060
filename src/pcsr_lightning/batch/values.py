"""Values of the command line; each function raises ``ArgumentTypeError`` for what is none.

No library is loaded here: wrong usage answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from pcsr_lightning.batch.sizes import WantedSize
from pcsr_lightning.routing import Parameter

FORMATS = ("png", "jpg", "webp", "tif", "bmp", "avif")


def wanted_size(text: str) -> WantedSize:
    """``3840x2160``, ``3840x``, ``x2160``."""
    try:
        return WantedSize.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def format_name(text: str) -> str:
    """``png``, ``.JPEG``."""
    name = text.lower().removeprefix(".")
    name = {"jpeg": "jpg", "tiff": "tif"}.get(name, name)
    if name not in FORMATS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(FORMATS)}")
    return name


def whole_number(text: str, least: int, most: int, what: str) -> int:
    """A number in plain digits from ``least`` to ``most``; ``what`` says which are meant."""
    if not text.isascii() or not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {what}")
    return int(text)


def quality(text: str) -> int:
    """``1`` to ``100``."""
    return whole_number(text, 1, 100, "from 1 to 100")


def count(text: str) -> int:
    """``1`` up."""
    return whole_number(text, 1, 2**60 - 1, "of at least 1")


def of_rule(parameter: Parameter) -> Callable[[str], float]:
    """Reads the value of a routing rule: ``.5``, and ``50%`` if the rule takes a share."""

    def parse(text: str) -> float:
        try:
            return parameter.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {parameter.expected}") from None

    return parse


def byte_count(text: str) -> int:
    """``200M``, ``1G``, ``500000000``."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    try:
        size = float(number) * unit
    except ValueError:
        size = 0.0
    if not 1 <= size < 2**60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, such as 200M or 1G")
    return int(size)

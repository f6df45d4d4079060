"""Lines for a terminal: one that shows that work has begun, and results in 80 columns.

No library is loaded here: the first sign of life comes before PyTorch is imported.
"""

from __future__ import annotations

import sys
import textwrap
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

COLUMNS = 80


@contextmanager
def sign_of_life(text: str, quiet: bool = False) -> Iterator[None]:
    """Shows ``text`` on stderr while the block runs, if stderr is a terminal."""
    shown = not quiet and sys.stderr is not None and sys.stderr.isatty()
    if shown:
        sys.stderr.write(f"{text}\r")
        sys.stderr.flush()
    try:
        yield
    finally:
        if shown:
            sys.stderr.write(f"{' ' * len(text)}\r")
            sys.stderr.flush()


def fitted(name: str, text: str) -> str:
    """``NAME: TEXT`` in 80 columns; of a longer name, only the end is shown."""
    room = COLUMNS - _width(text) - len(": ")
    if _width(name) > room:
        while name and _width(name) > room - len("..."):
            name = name[1:]
        name = f"...{name}"
    return f"{name}: {text}"


def indented(text: str) -> list[str]:
    """A sentence in lines of 80 columns, set off from the line above."""
    return textwrap.wrap(text, COLUMNS, initial_indent="  ", subsequent_indent="  ")


def _width(text: str) -> int:
    """Columns: Chinese, Japanese and Korean letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)

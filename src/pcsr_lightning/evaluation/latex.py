"""Tables for papers: the LaTeX environment ``tabular``, with the lines of the package booktabs."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_SPECIAL = re.compile("|".join(map(re.escape, _ESCAPED)))
_MINUS = re.compile(r"(?<![\w.)-])-(?=\d|inf)")
"""The sign of a number, which LaTeX would print as a hyphen."""


def escape(text: str) -> str:
    """Text as LaTeX prints it: special characters, minus signs and ``+-``."""
    escaped = _SPECIAL.sub(lambda found: _ESCAPED[found[0]], text)
    escaped = escaped.replace("+-", r"$\pm$")
    return _MINUS.sub("$-$", escaped)


def tabular(
    headings: Sequence[str],
    align: str,
    sections: Sequence[Sequence[Sequence[str]]],
    title: str = "",
) -> str:
    r"""A table that ``\input`` takes; it needs ``\usepackage{booktabs}``.

    Args:
        headings: of the columns.
        align: a letter for each column, ``l`` or ``r``.
        sections: of rows of cells; a ``\midrule`` stands between them.
        title: in a comment above the table.
    """
    body = "\n\\midrule\n".join(
        "\n".join(_line(row) for row in rows) for rows in ([headings], *sections)
    )
    comment = "".join(f"% {line}\n" for line in title.splitlines())
    begin, end = f"\\begin{{tabular}}{{{align}}}\n\\toprule", "\\bottomrule\n\\end{tabular}"
    return f"{comment}{begin}\n{body}\n{end}\n"


def _line(cells: Sequence[str]) -> str:
    # An en dash where nothing is known. After the line before, [ and * would be an argument of \\.
    texts = ["--" if cell == "-" else escape(cell) for cell in cells]
    first = "{}" if texts[0].startswith(("[", "*")) else ""
    return first + " & ".join(texts) + r" \\"

"""Docstrings as they are read on a page.

Doctests are shown as code: those below ``Example:``, which Griffe knows as ``Examples:``, and those
in between the text. Roles, such as ``:func:`name```, are shown as names.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

HEADING = re.compile(r"^(\s*)Example:$", re.MULTILINE)
ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?([^`]+)`")
LOOSE = re.compile(r"^([ ]*)>>> .*\n(?:\1\S.*\n)*", re.MULTILINE)


class Examples(Extension):
    """Turns them into what mkdocstrings knows."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Renames the heading before the docstring is read."""
        if obj.docstring is None:
            return
        text = ROLE.sub(lambda match: f"`{match[1].split('.')[-1]}`", obj.docstring.value)
        text, found = HEADING.subn(r"\1Examples:", text)
        if not found:
            text = LOOSE.sub(lambda match: f"```pycon\n{match[0]}```\n", text)
        obj.docstring.value = text

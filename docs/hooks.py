"""MkDocs hooks: includes parts of other files of the repository in the pages.

    <!-- include: benchmarks/README.md#Sweeps over `k` -->  a section, without its heading
    <!-- include: benchmarks/README.md#Training/Results --> a section within a section
    <!-- include: conf/experiment/release/about-data.md --> a whole file
    <!-- model cards -->                                    the card of every released model

A link in an included part leads to the page that shows its target. Without such a page only the
link's text remains.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
CARDS = (Path("src/pcsr_lightning/weights/released"), Path("models"))
INCLUDE = re.compile(r"^<!-- include: (\S+?)(?:#(.+?))? -->$", re.MULTILINE)
MODEL_CARDS = "<!-- model cards -->"
LINK = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) (.+)$")
FENCE = re.compile(r"^(```|~~~)")
SHOWN_AT = {
    "README.md": "index.md",
    "benchmarks/README.md": "performance.md",
    "CONTRIBUTING.md": "index.md",
}
"""Files outside docs/ and the pages that links to them lead to."""
PICTURES = {"benchmarks/growth.png": "images/growth.png"}
"""Pictures outside docs/ and their paths in the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pictures from outside docs/."""
    for source, target in PICTURES.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_serve(server: Any, **_: Any) -> Any:
    """Watches the included files too."""
    for path in ("benchmarks", *map(str, CARDS)):
        server.watch(str(ROOT / path))
    return server


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Replaces the comments listed above by what they name."""
    where = posixpath.dirname(page.file.src_uri)
    markdown = INCLUDE.sub(lambda match: include(match[1], match[2], where), markdown)
    if MODEL_CARDS in markdown:
        markdown = markdown.replace(MODEL_CARDS, "\n\n".join(card(p, where) for p in cards()))
    return markdown


def cards() -> list[Path]:
    """Paths of the released models' cards, relative to the repository."""
    found = (path for folder in CARDS for path in (ROOT / folder).glob("*.md"))
    return sorted((path.relative_to(ROOT) for path in found), key=lambda path: path.stem)


def card(path: Path, where: str) -> str:
    """A model card with its headings one level lower, and its curve if there is one."""
    text = include(path.as_posix(), None, where)
    curve = ROOT / "docs" / "images" / f"{path.stem}-set14.png"
    if curve.is_file():
        text += f"\n\n![PSNR against GFLOPs over k on Set14: {path.stem}](images/{curve.name})"
    return text


def include(path: str, section: str | None, where: str) -> str:
    """A file or a section of it, with links relative to the folder ``where``.

    Raises:
        PluginError: there is no such file or section.
    """
    file = ROOT / path
    if not file.is_file():
        raise PluginError(f"include: there is no {path}")
    lines = file.read_text(encoding="utf-8").splitlines()
    for title in section.split("/") if section else []:
        lines = cut(lines, title, path)
    if not section:
        lines = deeper(lines)
    return LINK.sub(lambda match: relinked(match, path, where), "\n".join(lines).strip("\n"))


def headings(lines: list[str]) -> list[tuple[int, int, str]]:
    """Line, level and text of each heading outside code blocks."""
    found, fenced = [], False
    for number, line in enumerate(lines):
        if FENCE.match(line):
            fenced = not fenced
        match = HEADING.match(line)
        if match and not fenced:
            found.append((number, len(match[1]), match[2]))
    return found


def cut(lines: list[str], title: str, path: str) -> list[str]:
    """The lines of a section, sub-sections included."""
    all_of_them = headings(lines)
    for place, (number, level, text) in enumerate(all_of_them):
        if text == title:
            ends = [n for n, other, _ in all_of_them[place + 1 :] if other <= level]
            return lines[number + 1 : ends[0] if ends else len(lines)]
    raise PluginError(f"include: {path} has no section {title!r}")


def deeper(lines: list[str]) -> list[str]:
    """Makes every heading one level lower, because the page has a title of its own."""
    at = {number for number, _, _ in headings(lines)}
    return [f"#{line}" if number in at else line for number, line in enumerate(lines)]


def relinked(match: re.Match[str], path: str, where: str) -> str:
    """The link on the page: to another page or picture, or only its text."""
    mark, words, target = match.groups()
    if re.match(r"[a-z]+:", target) or target.startswith("#"):
        return match[0]
    file, _, anchor = target.partition("#")
    file = posixpath.normpath(posixpath.join(posixpath.dirname(path), file))
    if file in PICTURES:
        place = PICTURES[file]
    elif file.startswith("docs/"):
        place = file.removeprefix("docs/")
    elif Path(file).parent in CARDS and file.endswith(".md"):
        place, anchor = "models.md", Path(file).stem
    elif file in SHOWN_AT:
        place = SHOWN_AT[file]
    else:
        return words if not mark else ""
    place = os.path.relpath(place, where or ".")
    return f"{mark}[{words}]({place}{'#' + anchor if anchor else ''})"

"""Tables of measurements: for a terminal, as Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from pcsr_lightning.evaluation.measurement import Measurement, measured_fields

PLAIN_WIDTH = 1000
"""Columns where output is not a terminal: no line of a table is ever broken there."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: above it.
        cell: what a row has there.
        align: of its cells on a terminal.
    """

    heading: str
    cell: Callable[[Measurement], str]
    align: Literal["left", "right"] = "right"


def number(name: str, heading: str | None = None, text: str | None = None) -> Column:
    """A column of one of the measured numbers; ``-`` where it is not known.

    Args:
        name: of the field of :class:`Measurement`.
        heading: in place of the field's own.
        text: a format in place of the field's own.
    """
    metadata = measured_fields()[name].metadata

    def cell(row: Measurement) -> str:
        value = getattr(row, name)
        if not _known(value) or (isinstance(value, float) and math.isnan(value)):
            return "-"
        return format(value, text) if text else str(metadata["text"](value))

    return Column(metadata["heading"] if heading is None else heading, cell)


def numbers(rows: Sequence[Measurement]) -> list[Column]:
    """A column of every number that one of the rows has."""
    names = measured_fields()
    return [number(name) for name in names if any(_known(getattr(row, name)) for row in rows)]


def _known(value: Any) -> bool:
    return value is not None and value != ()


NAME = Column("", lambda row: row.name, align="left")


def scale_text(scale: tuple[float, float]) -> str:
    """``4``, or ``4 x 3.7`` for (vertical, horizontal)."""
    return f"{scale[0]:g}" if scale[0] == scale[1] else f"{scale[0]:g} x {scale[1]:g}"


def terminal_table(
    columns: Sequence[Column], sections: Sequence[Sequence[Measurement]], title: str = ""
) -> Table:
    """A table to print, with a line between its sections."""
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE)
    for column in columns:
        table.add_column(column.heading, justify=column.align, no_wrap=True)
    for rows in filter(None, sections):
        table.add_section()
        for row in rows:
            table.add_row(*(column.cell(row) for column in columns))
    return table


def print_table(table: Table, console: Console | None = None) -> None:
    """Prints a table: framed and fitted on a terminal, plain lines of any length elsewhere."""
    console = console or Console()
    if not console.is_terminal:
        table.box = None
        console.width = PLAIN_WIDTH
    console.print(table)


def print_path(path: Path, console: Console) -> None:
    """Prints where a file is, on one line, ready to be copied."""
    console.print(f"{path}", soft_wrap=True, highlight=False, markup=False)


def markdown_table(columns: Sequence[Column], rows: Sequence[Measurement]) -> str:
    """A table in Markdown; empty cells where a number is not known."""
    lines = [[column.heading for column in columns], ["---"] * len(columns)]
    lines += [[column.cell(row) for column in columns] for row in rows]
    texts = [["" if cell == "-" else cell for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in texts)


def csv_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of plain values as CSV.

    Shares are written ``0.6100 0.3900``, heaviest first; what is within ``bicubic`` or
    ``routing`` gets a column each, such as ``bicubic/psnr``.
    """
    flat = [_flat(row) for row in rows]
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in flat for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}/{name}": inner for name, inner in value.items()}
        elif isinstance(value, list | tuple):
            flat[key] = " ".join(f"{x:.4f}" for x in value)
        else:
            flat[key] = value
    return flat

"""Tables of measurements: for a terminal, as Markdown, as CSV and as LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.evaluation.latex import tabular
from pcsr_lightning.evaluation.measurement import Measurement, measured_fields

PLAIN_WIDTH = 1000
"""Columns where output is not a terminal: no line of a table is ever broken there."""
UNKNOWN = "-"

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column of a table.

    Attributes:
        heading: above it.
        cell: what a row has there, as text.
        align: of its cells.
        value: the plain value for CSV, in full precision; the text where there is none.
        key: its heading in CSV; ``heading`` if empty.
        csv_only: leaves it out elsewhere.
    """

    heading: str
    cell: Callable[[Row], str]
    align: Literal["left", "right"] = "right"
    value: Callable[[Row], Any] | None = None
    key: str = ""
    csv_only: bool = False

    def plain(self, row: Row) -> Any:
        """What CSV has there."""
        if self.value is not None:
            return _plain(self.value(row))
        text = self.cell(row)
        return "" if text == UNKNOWN else text


@dataclass(frozen=True)
class DataTable(Generic[Row]):
    """Columns and rows, which a terminal, LaTeX and CSV show alike.

    Attributes:
        columns: from left to right.
        sections: groups of rows, with a line between them; empty ones are left out.
        title: above.
    """

    columns: Sequence[Column[Row]]
    sections: Sequence[Sequence[Row]]
    title: str = ""

    def __rich__(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title or None, title_justify="left", box=box.SIMPLE)
        for column in self._shown:
            table.add_column(column.heading, justify=column.align, no_wrap=True)
        for section in self._texts():
            table.add_section()
            for cells in section:
                table.add_row(*cells)
        return table

    def latex(self) -> str:
        """A ``tabular`` for the package booktabs, with the title in a comment above it."""
        return tabular(
            [column.heading for column in self._shown],
            "".join(column.align[0] for column in self._shown),
            self._texts(),
            self.title,
        )

    def csv(self) -> str:
        """One line a row, numbers in full precision; empty where one is not known."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([column.key or column.heading for column in self.columns])
        for section in self.sections:
            writer.writerows([column.plain(row) for column in self.columns] for row in section)
        return text.getvalue()

    def write(self, folder: Path, stem: str = "table") -> list[Path]:
        """Writes ``table.csv`` and ``table.tex``, or the like; returns them."""
        paths = [folder / f"{stem}.csv", folder / f"{stem}.tex"]
        for path, text in zip(paths, (self.csv(), self.latex()), strict=True):
            atomic_write(path, text.encode())
        return paths

    @property
    def _shown(self) -> list[Column[Row]]:
        return [column for column in self.columns if not column.csv_only]

    def _texts(self) -> list[list[list[str]]]:
        return [
            [[column.cell(row) for column in self._shown] for row in section]
            for section in self.sections
            if section
        ]


def number(name: str, heading: str | None = None, text: str | None = None) -> Column[Measurement]:
    """A column of one of the measured numbers; ``-`` where it is not known.

    Args:
        name: of the field of :class:`Measurement`.
        heading: in place of the field's own.
        text: a format in place of the field's own.
    """
    heading = measured_fields()[name].metadata["heading"] if heading is None else heading
    return Column(
        heading,
        lambda row: number_text(name, getattr(row, name), text),
        value=lambda row: getattr(row, name),
        key=name,
    )


def number_text(name: str, value: Any, text: str | None = None) -> str:
    """A value of a measured field as tables show it.

    Args:
        name: of the field of :class:`Measurement`.
        value: of the field; ``-`` where it is not known.
        text: a format in place of the field's own.
    """
    if not _known(value) or (isinstance(value, float) and math.isnan(value)):
        return UNKNOWN
    return format(value, text) if text else str(measured_fields()[name].metadata["text"](value))


def numbers(rows: Sequence[Measurement]) -> list[Column[Measurement]]:
    """A column of every number that one of the rows has."""
    return [*map(number, known_numbers(rows)), *own_metrics(rows)]


def known_numbers(rows: Sequence[Measurement]) -> list[str]:
    """The measured fields that one of the rows has."""
    return [name for name in measured_fields() if any(_known(getattr(row, name)) for row in rows)]


def own_metrics(rows: Sequence[Measurement]) -> list[Column[Measurement]]:
    """A column of each of a user's own metrics."""
    return [
        _own_metric(name) for name in dict.fromkeys(name for row in rows for name in row.metrics)
    ]


def _own_metric(name: str) -> Column[Measurement]:
    def value(row: Measurement) -> float | None:
        return row.metrics.get(name)

    def cell(row: Measurement) -> str:
        known = value(row)
        return UNKNOWN if known is None or math.isnan(known) else f"{known:.4f}"

    return Column(name, cell, value=value, key=f"metrics/{name}")


def _known(value: Any) -> bool:
    return value is not None and value != ()


NAME: Column[Measurement] = Column("", lambda row: row.name, align="left", key="name")


def scale_text(scale: tuple[float, float]) -> str:
    """``4``, or ``4 x 3.7`` for (vertical, horizontal)."""
    return f"{scale[0]:g}" if scale[0] == scale[1] else f"{scale[0]:g} x {scale[1]:g}"


def print_table(table: DataTable[Any], console: Console | None = None) -> None:
    """Prints a table: framed and fitted on a terminal, plain lines of any length elsewhere."""
    console, shown = console or Console(), table.__rich__()
    if not console.is_terminal:
        shown.box = None
        console.width = PLAIN_WIDTH
    console.print(shown)


def print_path(path: Path, console: Console) -> None:
    """Prints where a file is, on one line, ready to be copied."""
    console.print(f"{path}", soft_wrap=True, highlight=False, markup=False)


def markdown_table(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> str:
    """A table in Markdown; empty cells where a number is not known."""
    lines = [[column.heading for column in columns], ["---"] * len(columns)]
    lines += [[column.cell(row) for column in columns] for row in rows]
    texts = [["" if cell == UNKNOWN else cell for cell in line] for line in lines]
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
        else:
            flat[key] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    """As a cell of CSV: empty for NaN."""
    if isinstance(value, list | tuple):
        return " ".join(f"{x:.4f}" for x in value)
    return None if isinstance(value, float) and math.isnan(value) else value

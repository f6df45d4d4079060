"""A reproduced table: the paper's numbers, ours and the difference, in four formats; figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.figure import Figure

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.evaluation.curves import ORACLE, Curve, draw_curves
from pcsr_lightning.evaluation.figures import new_figure, save_for_papers
from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.evaluation.report import versions, write_json
from pcsr_lightning.evaluation.reproduction.measuring import Measured
from pcsr_lightning.evaluation.reproduction.rows import case
from pcsr_lightning.evaluation.tables import UNKNOWN, Column, DataTable, markdown_table

NOT_HERE = "not here"


@dataclass(frozen=True)
class Line:
    """A row of a table on one set, with the weights that it was measured with.

    Attributes:
        point: what the paper prints.
        whose: the weights.
        model: their name or file.
        measured: ``None`` where the pictures or the weights are not here.
        remark: how the classes were chosen; or what is not here and where to get it.
        oracle: whether the ground truth chose the classes.
    """

    point: PublishedPoint
    whose: str = ""
    model: str = ""
    measured: Measurement | None = None
    remark: str = ""
    oracle: bool = False

    @property
    def name(self) -> str:
        """Of the row."""
        return f"{self.point.model}, {ORACLE}" if self.oracle else self.point.model

    def paper(self, key: str) -> float | None:
        """A number that the paper prints."""
        value: float | None = None if self.oracle else getattr(self.point, key)
        return value

    def ours(self, key: str) -> float | None:
        """The same, measured."""
        if self.measured is None:
            return None
        if key == "milliseconds":
            seconds = self.measured.seconds
            return None if seconds is None or self.point.milliseconds is None else 1000 * seconds
        return float(getattr(self.measured, {"gflops": "gflops_published"}.get(key, key)))

    def difference(self, key: str) -> float | None:
        """Ours less the paper's; of costs and times, as a share of the paper's."""
        paper, ours = self.paper(key), self.ours(key)
        if paper is None or ours is None:
            return None
        return ours - paper if key == "psnr" else ours / paper - 1


def lines_of(point: PublishedPoint, whose: str, model: str, measured: Measured) -> list[Line]:
    """A measured row, and the oracle at its cost and at any, if they were measured."""
    lines = [Line(point, whose, model, measured.mean, measured.remark)]
    bounds = () if measured.sweep is None else measured.sweep.oracle
    for bound in (*bounds[:1], *bounds[-1:]):
        lines.append(Line(point, whose, model, bound, bound.routing_name, oracle=True))
    return lines


def table_of(lines: Sequence[Line], title: str) -> DataTable[Line]:
    """The lines, a section a set; columns in which nothing is known are left out."""
    columns = [
        Column[Line]("model", lambda line: line.name, "left"),
        Column[Line]("pictures", lambda line: case(line.point), "left"),
        Column[Line]("weights", lambda line: line.whose or UNKNOWN, "left", key="weights"),
        *_three("psnr", "PSNR", " dB", ".3f", "+.3f"),
        *_three("gflops", "GFLOPs", "", ".3f", "+.1%"),
        *_three("milliseconds", "ms", "", ".0f", "+.0%"),
        Column[Line]("remark", lambda line: NOT_HERE if line.measured is None else line.remark,
                     "left", value=lambda line: line.remark),
    ]  # fmt: skip
    known = [c for c in columns if any(c.cell(line) != UNKNOWN for line in lines)]
    cases = list(dict.fromkeys(case(line.point) for line in lines))
    return DataTable(known, [[x for x in lines if case(x.point) == c] for c in cases], title)


def _three(key: str, name: str, unit: str, text: str, difference: str) -> list[Column[Line]]:
    def column(what: str, value: Callable[[Line], float | None], text: str) -> Column[Line]:
        def cell(line: Line) -> str:
            known = value(line)
            return UNKNOWN if known is None else _text(known, text)

        of = f"{key}_{what.replace(' ', '_') or 'ours'}"
        return Column(f"{name}{unit}, {what or 'ours'}", cell, value=value, key=of)

    return [
        column("paper", lambda line: line.paper(key), ""),
        column("", lambda line: line.ours(key), text),
        column("difference", lambda line: line.difference(key), difference),
    ]


def _text(value: float, text: str) -> str:
    """A number; without a format as the paper prints it, with two or three decimals or one."""
    if text:
        shown = format(value, text)
        return shown.replace("-", "+") if not re.search("[1-9]", shown) else shown
    return format(value, ".3f").removesuffix("0") if value < 100 else f"{value:g}"


def notes(lines: Sequence[Line]) -> list[str]:
    """What is not here, and where to get it; each once."""
    missing = [line for line in lines if line.measured is None]
    return list(dict.fromkeys(f"{line.name} on {case(line.point)}: {line.remark}"
                              for line in missing))  # fmt: skip


def write_all(
    lines: Sequence[Line], title: str, curves: dict[str, list[Curve]], folder: Path
) -> list[Path]:
    """Writes ``table.md``, ``.csv``, ``.tex``, ``.pdf`` and ``measured.json``, and a figure a set.

    Args:
        lines: the table.
        title: above it.
        curves: of each set that has any.
        folder: made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table, missing = table_of(lines, title), notes(lines)
    text = [f"# {title}", "", markdown_table(table.columns, lines), ""]
    text += [*(["Not here:", "", *(f"- {note}" for note in missing), ""] if missing else [])]
    atomic_write(folder / "table.md", "\n".join(text).encode())
    written = [folder / "table.md", *table.write(folder)]
    written += save_for_papers(_drawn(table), folder / "table.png")
    for name, found in curves.items():
        points = {id(x.point): x.point for x in lines if x.point.dataset == name}.values()
        printed = [p for p in points if p.psnr is not None]
        figure = draw_curves(found, printed, f"{title}: {name}")
        written += save_for_papers(figure, folder / f"psnr_flops_{name}.png")
    content = [
        {
            "published": asdict(line.point),
            "weights": line.whose,
            "model": line.model,
            "remark": line.remark,
            "measured": None if line.measured is None else line.measured.to_json(),
        }
        for line in lines
    ]
    json = {"title": title, "lines": content, "versions": versions()}
    return [*written, write_json(json, folder / "measured.json")]


def curves_of(point: PublishedPoint, whose: str, measured: Measured) -> list[Curve]:
    """A measured row in the figure: its curve and the oracle's, or its single point."""
    name = f"{point.model}, {whose} weights"
    swept = measured.sweep
    if swept is None:
        return [Curve(name, (measured.mean,))]
    curves = [Curve(name, swept.points)]
    if swept.oracle:
        curves.append(Curve(f"{name}, {ORACLE}", swept.oracle, bound=True))
    return curves


def _drawn(table: DataTable[Line]) -> Figure:
    """The table as a figure, for a PDF without LaTeX."""
    rows = [[column.cell(line) for column in table.columns] for s in table.sections for line in s]
    headings = [column.heading for column in table.columns]
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    figure = new_figure(0.085 * (sum(widths) + 2 * len(widths)), 0.24 * (len(rows) + 3))
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_title(table.title, fontsize=11)
    drawn = axes.table(
        rows, colLabels=headings, loc="upper center", edges="horizontal",
        colWidths=[(w + 2) / (sum(widths) + 2 * len(widths)) for w in widths],
        cellLoc="right",
    )  # fmt: skip
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    for (_, column), cell in drawn.get_celld().items():
        cell.set_text_props(ha=table.columns[column].align)
        cell.set_linewidth(0.4)
    return figure

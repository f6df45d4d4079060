"""Several evaluations in one table and one figure, printed and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from rich.console import Console

from pcsr_lightning.evaluation.comparison import (
    Compared,
    Job,
    Pool,
    Row,
    compare,
    curves_of,
    pools_of,
    rows_of,
)
from pcsr_lightning.evaluation.curves import Curve, draw_curves
from pcsr_lightning.evaluation.figures import save_for_papers
from pcsr_lightning.evaluation.jobs import SEED
from pcsr_lightning.evaluation.measurement import Measurement, measured_fields
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.evaluation.report import FIGURE
from pcsr_lightning.evaluation.seeds import Spread, paired, spread_columns
from pcsr_lightning.evaluation.tables import (
    UNKNOWN,
    Column,
    DataTable,
    known_numbers,
    number,
    number_text,
    own_metrics,
    print_path,
    print_table,
    scale_text,
)

BICUBIC = "bicubic"

T = TypeVar("T")


def report_jobs(
    jobs: Sequence[Job], folder: Path, console: Console, reference: str | None = None
) -> list[Path]:
    """Prints what jobs measured and writes it as CSV and LaTeX; draws PSNR against GFLOPs.

    ``table.*`` has a row for each job, or each value of its sweep. ``seeds.*`` has mean and
    standard deviation where models differ in nothing but the seed of their training. ``bd.*`` has
    BD-PSNR and BD-rate where several curves are of the same pictures.

    Args:
        jobs: one at least.
        folder: for the files.
        console: for the tables.
        reference: the model that the others are compared with; the first if not given.

    Returns:
        The figures as PNG: ``psnr_flops.png``, or several with numbers, one for each set of
        pictures, scale and protocol with two points or more. Each is beside its PDF.
    """
    rows = rows_of(jobs)
    pools = pools_of(rows)
    tables: dict[str, DataTable[Row] | DataTable[Pool] | DataTable[Compared]] = {
        "table": jobs_table(rows)
    }
    if len(pools) < len(rows):
        tables["seeds"] = seeds_table(pools)
    curves = [curves_of(section) for section in _sections(pools, lambda p: p.first).values()]
    compared = [found for section in curves if (found := compare(section, reference))]
    if compared:
        tables["bd"] = bd_table(compared)
    paths = []
    for stem, table in tables.items():
        print_table(table, console)
        paths += table.write(folder, stem)
    drawn = [section for section in curves if sum(len(c.points) for _, c in section) > 1]
    figures = [
        folder / (FIGURE if len(drawn) == 1 else f"psnr_flops_{n}.png") for n in range(len(drawn))
    ]
    published = list(dict.fromkeys(point for job in jobs for point in job.published))
    for path, section in zip(figures, drawn, strict=True):
        paths += _draw(section, published, path)
    for path in paths:
        print_path(path, console)
    return figures


def _draw(
    section: Sequence[tuple[Row, Curve]], published: Sequence[PublishedPoint], path: Path
) -> list[Path]:
    """The curves of one set of pictures, and the paper's points for them; returns the files."""
    place = section[0][0].measured
    theirs = [
        point
        for point in published
        if point.dataset.lower() == place.dataset.lower()
        and (point.scale, point.scale) == place.scale
    ]
    curves = [curve for _, curve in section]
    figure = draw_curves(curves, theirs, _place(place), label=attrgetter("routing_name"))
    return save_for_papers(figure, path)


def jobs_table(rows: Sequence[Row]) -> DataTable[Row]:
    """A row for each job or value, below bicubic, for every set of pictures, scale and protocol."""
    sections = [
        [_bicubic(section[0]), *section] for section in _sections(rows, lambda row: row).values()
    ]
    measured = [row.measured for row in rows]
    names = [name for name in _common_numbers(measured) if name != "seconds"]
    # Three decimals where values of a sweep are neighbours.
    text = ".3f" if any(m.ssim is None for m in measured) else None
    columns = [
        Column[Row]("model", attrgetter("model"), "left"),
        *_place_columns(rows, lambda row: row),
        *(_setting(key, lambda row: row) for key in _keys(rows)),
        Column("routing", _routing, "left"),
        *(_lifted(number(name, text=text if name == "psnr" else None)) for name in names),
        *map(_lifted, own_metrics(measured)),
    ]
    title = _place(measured[0]) if len(sections) == 1 else "all jobs"
    return DataTable(columns, sections, title)


def seeds_table(pools: Sequence[Pool]) -> DataTable[Pool]:
    """A row for each setting: mean and standard deviation (n - 1) over the seeds."""
    sections = list(_sections(pools, lambda pool: pool.first).values())
    rows = [pool.first for pool in pools]
    names = _common_numbers([row.measured for row in rows])
    spreads = [name for name in names if name not in ("share", "seconds")]
    differences = _differences(pools)
    columns = [
        Column[Pool]("model", attrgetter("model"), "left"),
        *_place_columns(pools, lambda pool: pool.first),
        *(_setting(key, lambda pool: pool.first) for key in _keys(rows) if key != SEED),
        Column("routing", lambda pool: pool.first.measured.routing_name, "left"),
        Column("seeds", lambda pool: str(len(pool.rows)), value=lambda pool: len(pool.rows)),
        *(column for name in spreads for column in _spread(name)),
        Column("share, heaviest first", lambda pool: number_text("share", _share(pool)),
               value=_share, key="share"),
    ]  # fmt: skip
    if any(differences.values()):
        columns += spread_columns(
            "psnr_over_first", "PSNR over the first, paired by seed",
            lambda pool: differences[id(pool)], lambda value: f"{value:+.3f}",
        )  # fmt: skip
    place = f"{_place(rows[0].measured)}, " if len(sections) == 1 else ""
    return DataTable(columns, sections, f"{place}mean +- standard deviation over seeds")


def bd_table(sections: Sequence[Sequence[Compared]]) -> DataTable[Compared]:
    """A row for each curve beside the anchor's."""
    columns = [
        Column[Compared]("model", attrgetter("name"), "left"),
        Column("against", attrgetter("anchor"), "left"),
        *_place_columns([c for section in sections for c in section], lambda c: c.row),
        Column("BD-PSNR, dB", lambda c: _signed(c.difference.psnr, "+.3f"),
               value=lambda c: c.difference.psnr, key="bd_psnr"),
        Column("BD-rate, %", lambda c: _signed(c.difference.rate, "+.1f"),
               value=lambda c: c.difference.rate, key="bd_rate"),
        Column("over GFLOPs", lambda c: _range(c.difference.gflops, ".3g")),
        Column("over PSNR, dB", lambda c: _range(c.difference.decibels, ".2f")),
    ]  # fmt: skip
    return DataTable(columns, sections, "Bjontegaard differences over log10(GFLOPs)")


def _sections(things: Sequence[T], row: Callable[[T], Row]) -> dict[object, list[T]]:
    """Things by the pixels that they were measured on."""
    found: dict[object, list[T]] = {}
    for thing in things:
        found.setdefault(row(thing).where, []).append(thing)
    return found


def _bicubic(beside: Row) -> Row:
    """Bicubic upscaling of the same pictures."""
    m = beside.measured
    place = {name: getattr(m, name) for name in ("data_root", "data_name", "scale", "protocol")}
    return Row(replace(m.bicubic_row(), **place), BICUBIC, {})


def _routing(row: Row) -> str:
    return "" if row.model == BICUBIC else row.measured.routing_name


def _place(m: Measurement) -> str:
    """``Set5, x4``; the protocol too where it is not full images."""
    patches = "" if m.patch_size is None else f" of {m.patch_size}"
    how = "" if m.protocol in ("", "whole") else f", protocol {m.protocol}{patches}"
    return f"{m.dataset}, x{scale_text(m.scale)}{how}"


def _place_columns(things: Sequence[T], row: Callable[[T], Row]) -> list[Column[T]]:
    """What differs of pictures, scale and protocol."""

    def column(heading: str, text: Callable[[Measurement], str]) -> Column[T]:
        return Column(heading, lambda thing: text(row(thing).measured), "left")

    columns = [
        column("pictures", lambda m: m.dataset),
        column("scale", lambda m: scale_text(m.scale)),
        column("protocol", lambda m: " ".join(map(str, filter(None, (m.protocol, m.patch_size))))),
    ]
    return [found for found in columns if len({found.cell(thing) for thing in things}) > 1]


def _common_numbers(measured: Sequence[Measurement]) -> list[str]:
    """What was measured everywhere: sweeps know less than single routings do."""
    known = [known_numbers([m]) for m in measured]
    return [name for name in known[0] if all(name in names for names in known)]


def _keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.settings))


def _setting(key: str, row: Callable[[T], Row]) -> Column[T]:
    return Column(key, lambda thing: row(thing).settings.get(key, ""))


def _lifted(column: Column[Measurement]) -> Column[Row]:
    """A column of measurements as one of rows."""
    return Column(
        column.heading,
        lambda row: column.cell(row.measured),
        column.align,
        lambda row: column.plain(row.measured),
        column.key,
    )


def _spread(name: str) -> list[Column[Pool]]:
    # One digit more than a single measurement has: deviations are small.
    text = ".3f" if name.startswith("psnr") else None
    heading = measured_fields()[name].metadata["heading"]
    return spread_columns(
        name, heading, lambda pool: pool.spread(name), lambda value: number_text(name, value, text)
    )


def _share(pool: Pool) -> tuple[float, ...]:
    shares = [row.measured.share for row in pool.rows]
    return tuple(fmean(column) for column in zip(*shares, strict=True))


def _differences(pools: Sequence[Pool]) -> dict[int, Spread | None]:
    """Of each pool, the PSNR over the first of the same pictures and routing, paired by seed."""
    first: dict[object, Pool] = {}
    found: dict[int, Spread | None] = {}
    for pool in pools:
        measured = pool.first.measured
        base = first.setdefault((pool.first.where, measured.routing, measured.oracle), pool)
        found[id(pool)] = (
            None if base is pool else paired(base.by_seed("psnr"), pool.by_seed("psnr"))
        )
    return found


def _signed(value: float | None, text: str) -> str:
    return UNKNOWN if value is None else format(value, text)


def _range(interval: tuple[float, float] | None, text: str) -> str:
    return UNKNOWN if interval is None else " to ".join(format(end, text) for end in interval)

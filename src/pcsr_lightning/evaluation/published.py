"""The paper's own numbers, to set beside ours: one CSV a table, as printed, in ``published/``."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TypeVar

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.measurement import Measurement

TABLES: Mapping[str, str] = {
    "Table 1": "table_1.csv",
    "Table 2": "table_2.csv",
    "Table 3": "table_3.csv",
    "Table 4": "table_4.csv",
    "Table 5": "table_5.csv",
    "Appendix Table 1": "appendix_table_1.csv",
    "Appendix Table 2": "appendix_table_2.csv",
    "Appendix Table 3": "appendix_table_3.csv",
    "Appendix Table 4": "appendix_table_4.csv",
    "Appendix Table 5": "appendix_table_5.csv",
}
"""Tables of PCSR (ECCV 2024), and the files that hold them."""
ABLATIONS = ("Table 3", "Appendix Table 3", "Appendix Table 4")
"""Those that vary one model, or measure it in another way than the rest: only given by name."""

_UNITS = {"K": 1_000, "M": 1_000_000}
_PLAIN = "original"
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class PublishedPoint:
    """One model on one data set at one scale, as the paper prints it.

    What a table does not tell is ``None``.

    Attributes:
        source: the table, a key of :data:`TABLES`.
        model: as printed, such as ``"CARN-PCSR-3class"``.
        backbone: ``"FSRCNN"``, ``"CARN"``, ``"SRResNet"`` or ``"BSRN"``.
        method: ``"original"``, ``"ClassSR"``, ``"ARM"``, ``"MGA"`` or ``"PCSR"``.
        dataset: such as ``"Test2K"``.
        scale: an integer.
        psnr: dB, RGB.
        gflops: by the published count, comparable to ``gflops_published`` only. FSRCNN's original
            is given about 9.4 times what it really costs: its transposed convolution is counted
            at the output's size.
        percent: of the original's GFLOPs, as printed: for CARN-PCSR on Test4K that is 58, where
            260.0 of 457.8 are 57.
        parameters: at this scale; the paper rounds.
        total_parameters: of the models for all scales together (Table 5).
        milliseconds: a picture's running time (appendix, Table 2).
        patch_size: LR pixels, where pictures are upscaled patch by patch (Table 3).
        heavy_neighbours: how many a light pixel must have to be refined (appendix, Table 3).
    """

    source: str
    model: str
    backbone: str
    method: str
    dataset: str
    scale: int
    psnr: float | None = None
    gflops: float | None = None
    percent: int | None = None
    parameters: int | None = None
    total_parameters: int | None = None
    milliseconds: float | None = None
    patch_size: int | None = None
    heavy_neighbours: int | None = None

    def row(self) -> Measurement:
        """As a row of a table, marked as published."""
        unknown = math.nan
        return Measurement(
            name=f"{self.model} (published, {self.source})",
            psnr=unknown if self.psnr is None else self.psnr,
            gflops_published=unknown if self.gflops is None else self.gflops,
            seconds=None if self.milliseconds is None else self.milliseconds / 1000,
            model=self.model,
            backbone=self.backbone,
            parameters=self.parameters,
            scale=(self.scale, self.scale),
            data_root=self.dataset,
        )


def published_points(
    dataset: str | None = None,
    backbone: str | None = None,
    scale: int | None = 4,
    table: str | None = None,
) -> list[PublishedPoint]:
    """The paper's numbers, table by table in the order of print; ``None`` means any.

    Empty where the paper has nothing of the kind. The same model may come several times: each
    table has its own training or protocol, which is why every point names its table.

    Args:
        dataset: ``Test2K``, ``Test4K``, ``Test8K``, ``Urban100``, ``Set14``, ``B100`` or
            ``Manga109``; capitals do not matter.
        backbone: ``FSRCNN``, ``CARN``, ``SRResNet`` or ``BSRN``; capitals do not matter.
        scale: 2, 4 or 8.
        table: a key of :data:`TABLES`; if not given, all but :data:`ABLATIONS`.

    Raises:
        ConfigError: there is no such table here.

    Example:
        >>> [p.gflops for p in published_points("Test2K", "carn", table="Table 1")]
        [112.0, 101.7, 99.8, 64.0]
    """
    if table is not None and table not in TABLES:
        raise ConfigError(f"there is no published {table!r}: choose one of {', '.join(TABLES)}")
    return [
        point
        for name in TABLES
        if name == table or (table is None and name not in ABLATIONS)
        for point in _read(name)
        if (dataset is None or point.dataset.lower() == dataset.lower())
        and (backbone is None or point.backbone.lower() == backbone.lower())
        and (scale is None or point.scale == scale)
    ]


@cache
def _read(table: str) -> tuple[PublishedPoint, ...]:
    file = resources.files("pcsr_lightning.evaluation") / "published" / TABLES[table]
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return tuple(_point(table, row) for row in rows)


def _point(table: str, row: Mapping[str, str]) -> PublishedPoint:
    backbone, method = [*row["model"].split("-"), _PLAIN][:2]
    return PublishedPoint(
        source=table,
        model=row["model"],
        backbone=backbone,
        method=method,
        dataset=row["dataset"],
        scale=int(row["scale"]),
        psnr=_cell(row, "psnr", float),
        gflops=_cell(row, "gflops", float),
        percent=_cell(row, "percent", int),
        parameters=_cell(row, "parameters", _count),
        total_parameters=_cell(row, "total_parameters", _count),
        milliseconds=_cell(row, "milliseconds", float),
        patch_size=_cell(row, "patch_size", int),
        heavy_neighbours=_cell(row, "heavy_neighbours", int),
    )


def _cell(row: Mapping[str, str], column: str, read: Callable[[str], Number]) -> Number | None:
    return read(row[column]) if column in row else None


def _count(printed: str) -> int:
    """``"1.5M"`` as 1,500,000."""
    return round(float(printed[:-1]) * _UNITS[printed[-1]])

"""The paper's numbers: all there, none mistyped."""

from __future__ import annotations

import re
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.published import ABLATIONS, TABLES, PublishedPoint, published_points

# models x data sets (Table 5: scales), counted by hand
ROWS = {
    "Table 1": 12 * 4,
    "Table 2": 6 * 3,
    "Table 3": 3 * 4,
    "Table 4": 3 * 3,
    "Table 5": 3 * 3,
    "Appendix Table 1": 4 * 3,
    "Appendix Table 2": 3 * 3,
    "Appendix Table 3": 6,
    "Appendix Table 4": 6 * 3,
    "Appendix Table 5": 2 * 3,
}


# Where the paper itself prints a percentage that its GFLOPs do not give: copied as printed.
# 260.0 of 457.8 GFLOPs are 57 %, printed as 58 %.
SLIPS = {
    ("Table 1", "CARN-PCSR", "Test4K"),
    ("Table 4", "CARN-PCSR-2class", "Test4K"),
}


@pytest.mark.parametrize("table", ROWS)
def test_rows(table: str) -> None:
    points = published_points(table=table, scale=None)
    assert len(points) == ROWS[table]
    assert {p.source for p in points} == {table}
    cells = {(p.model, p.dataset, p.scale, p.patch_size, p.heavy_neighbours) for p in points}
    assert len(cells) == len(points)
    for point in points:
        assert point.backbone in {"FSRCNN", "CARN", "SRResNet", "BSRN"}
        assert point.method in {"original", "ClassSR", "ARM", "MGA", "PCSR"}
        assert (point.psnr is None) == (table == "Appendix Table 2")
        assert (point.gflops is None) == (table in ("Appendix Table 2", "Appendix Table 3"))


def test_spot_values() -> None:
    [point] = [p for p in published_points("test2k", "fsrcnn", table="Table 1") if "P" in p.model]
    assert point == PublishedPoint(
        source="Table 1",
        model="FSRCNN-PCSR",
        backbone="FSRCNN",
        method="PCSR",
        dataset="Test2K",
        scale=4,
        psnr=25.61,
        gflops=8.5,
        percent=19,
        parameters=25_000,
    )
    arm = [p for p in published_points("Test2K", scale=2, table="Table 5") if p.method == "ARM"]
    assert [(p.psnr, p.gflops, p.parameters, p.total_parameters) for p in arm] == [
        (30.57, 181.0, 258_000, 885_000)
    ]
    times = published_points("Test4K", table="Appendix Table 2")
    assert [(p.method, p.milliseconds) for p in times] == [
        ("ClassSR", 19072.0),
        ("ARM", 4608.0),
        ("PCSR", 203.0),
    ]


def test_choosing() -> None:
    assert published_points("Test2K", "CARN", table="Table 1") == [
        p
        for p in published_points(table="Table 1")
        if (p.dataset, p.backbone) == ("Test2K", "CARN")
    ]
    compared = [rows for table, rows in ROWS.items() if table not in ABLATIONS]
    assert len(published_points(scale=None)) == sum(compared)
    assert {p.scale for p in published_points()} == {4}
    assert published_points("Set5") == []
    with pytest.raises(ConfigError, match="'Table 6': choose one of Table 1, "):
        published_points(table="Table 6")


def test_percentages_are_those_of_the_gflops() -> None:
    """A mistyped cost shows: the paper prints each cost twice, in GFLOPs and as a percentage."""
    slips = set()
    checked = 0
    points = [p for p in published_points(scale=None) if p.percent is not None]
    wholes = {(p.source, p.backbone, p.dataset): p.gflops for p in points if p.method == "original"}
    for point in points:
        whole, part = wholes[point.source, point.backbone, point.dataset], point.gflops
        assert whole is not None
        assert part is not None
        assert point.percent is not None
        # both are rounded to a tenth, then the percentage to a whole one
        low, high = (part - 0.05) / (whole + 0.05), (part + 0.05) / (whole - 0.05)
        if not 100 * low - 0.5 <= point.percent <= 100 * high + 0.5:
            slips.add((point.source, point.model, point.dataset))
        checked += 1
    assert slips == SLIPS
    assert checked == 48 + 18 + 9 + 6


def _numbers(text: str) -> Counter[str]:
    """Every number that is not part of a name such as Test2K, x4 or 2class."""
    return Counter(re.findall(r"(?<![\w.-])\d+(?:\.\d+)?", text))


# how the caption of each table starts in the text of the paper, and of how many parts it is
CAPTIONS = {
    "Table 1": ("**Table 1:** The comparison of the previous", 2),
    "Table 2": ("**Table 2:** The comparison of the MGA", 1),
    "Table 3": ("**Table 3:** Comparison of our PCSR and ClassSR", 1),
    "Table 4": ("**Table 4:** Comparison depending on the number", 1),
    "Table 5": ("**Table 5:** Comparison of multi-scale PCSR", 1),
    "Appendix Table 1": ("**Table 1:** PSNR and FLOPs for additional", 1),
    "Appendix Table 2": ("**Table 2:** Comparison of running time", 1),
    "Appendix Table 3": ("**Table 3:** Variation in PCSR performance", 1),
    "Appendix Table 4": ("**Table 4:** Comparison between pixel-shuffle", 1),
    "Appendix Table 5": ("**Table 5:** Comparison of BSRN", 1),
}


@pytest.mark.parametrize("table", TABLES)
def test_every_number_of_the_paper_is_there(table: str, shared: Path) -> None:
    paper = (shared / "paper.txt").read_text(encoding="utf-8")
    caption, parts = CAPTIONS[table]
    after = paper[paper.index(caption) :].partition("\n")[2]
    # a table is a run of lines with tabs
    blocks = re.findall(r"(?:^[^\n]*\t[^\n]*(?:\n|$))+", after, flags=re.MULTILINE)[:parts]
    body = "\n".join(
        line
        for block in blocks
        for line in block.splitlines()
        if re.search(r"\d\.|ms|[KM]\t", line)
    )
    printed = _numbers(re.sub(r"\*\*|</?b>", "", body))

    file = resources.files("pcsr_lightning.evaluation") / "published" / TABLES[table]
    header, *lines = file.read_text(encoding="utf-8").splitlines()
    columns = header.split(",")
    ours: Counter[str] = Counter()
    once: set[tuple[str, ...]] = set()
    for line in lines:
        row = dict(zip(columns, line.split(","), strict=True))
        for column in ("psnr", "gflops", "percent", "milliseconds"):
            ours.update(_numbers(row.get(column, "")))
        # the paper prints a model's size once for each part of a table (Table 5: for each scale)
        part = "lower" if row["dataset"] in {"Test8K", "Urban100"} and parts == 2 else "upper"
        for column, per in (("parameters", row["scale"]), ("total_parameters", "all")):
            key = (row["model"], part, column, per)
            if column in row and key not in once:
                once.add(key)
                ours.update(_numbers(row[column]))
    assert ours == printed

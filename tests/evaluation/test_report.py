"""The table and metrics.json."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pcsr_lightning.evaluation import (
    Benchmark,
    Measurement,
    Quality,
    Skipped,
    benchmark_table,
    metrics,
    print_table,
    published_points,
    write_json,
)
from pcsr_lightning.evaluation.measurement import mean, measured_fields
from pcsr_lightning.evaluation.tables import csv_table, markdown_table, numbers
from pcsr_lightning.inference import RoutingConfig


def picture(name: str, psnr: float, heavy: float) -> Measurement:
    return Measurement(
        psnr=psnr,
        psnr_y=psnr + 1,
        ssim=psnr / 40,
        bicubic=Quality(psnr=psnr - 2, psnr_y=psnr - 1, ssim=psnr / 50),
        gmacs=1.5,
        gflops_published=4.0,
        share=(heavy, 1 - heavy),
        seconds=0.25,
        name=name,
        size=(64, 48),
    )


TWO = Benchmark(
    (picture("a.png", 30.0, 0.2), picture("b/c.png", 27.0, 0.4)), (Skipped("d.png", "cut off"),)
)


def printed(console_is_terminal: bool, per_image: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=console_is_terminal, width=200, color_system=None)
    print_table(benchmark_table(TWO, "m (k = 0)", per_image, "Set5"), console)
    return out.getvalue()


def test_rows() -> None:
    rows = [line.split() for line in printed(False).splitlines()]
    assert rows[0] == ["Set5"]
    assert rows[2] == ["bicubic", "26.50", "27.50", "0.5700", "-", "-", "-", "-"]
    assert " ".join(rows[3]) == "m (k = 0) 28.50 29.50 0.7125 1.500 4.000 30.0 / 70.0 % 0.250"
    assert len(rows) == 4


def test_rows_of_every_picture() -> None:
    text = printed(False, per_image=True)
    names = [line.strip().split("  ")[0] for line in text.splitlines()[2:]]
    assert names == [
        *("a.png: bicubic", "a.png: m (k = 0)", "b/c.png: bicubic", "b/c.png: m (k = 0)"),
        *("bicubic", "m (k = 0)"),
    ]
    assert "27.00" in text
    assert "25.00" in text


def test_plain_where_nobody_looks_framed_where_somebody_does() -> None:
    assert printed(False).isascii()
    assert "─" in printed(True)


def test_a_long_name_is_not_cut_short_in_a_file() -> None:
    name = "x" * 300
    out = io.StringIO()
    result = Benchmark((picture(name, 30.0, 0.5),))
    print_table(benchmark_table(result, "m", per_image=True), Console(file=out, width=80))
    assert f"{name}: m" in out.getvalue()
    assert "25.0" not in out.getvalue().splitlines()[1]


def test_metrics(tmp_path: Path) -> None:
    path = write_json(metrics(TWO, {"scale": 4, "model": "m"}), tmp_path / "metrics.json")
    assert path == tmp_path / "metrics.json"
    assert list(tmp_path.iterdir()) == [path]
    content = json.loads(path.read_text())
    assert content["psnr"] == pytest.approx(28.5)
    assert content["gmacs"] == 1.5
    assert content["gflops_published"] == 4.0
    assert content["share"] == pytest.approx([0.3, 0.7])
    assert content["seconds"] == 0.25
    assert content["psnr_y"] == pytest.approx(29.5)
    assert content["ssim"] == pytest.approx(0.7125)
    assert content["bicubic"] == pytest.approx({"psnr": 26.5, "psnr_y": 27.5, "ssim": 0.57})
    assert content["images"][1] == {
        "name": "b/c.png",
        "size": [64, 48],
        "psnr": 27.0,
        "psnr_y": 28.0,
        "ssim": 0.675,
        "gmacs": 1.5,
        "gflops_published": 4.0,
        "share": pytest.approx([0.4, 0.6]),
        "seconds": 0.25,
        "bicubic": {"psnr": 25.0, "psnr_y": 26.0, "ssim": 0.54},
    }
    assert content["skipped"] == [{"name": "d.png", "reason": "cut off"}]
    assert (content["pictures"], content["scale"], content["model"]) == (2, 4, "m")
    assert content["versions"]["torch"]


def test_no_infinity_in_json(tmp_path: Path) -> None:
    same = Benchmark((picture("a.png", math.inf, 0.2), picture("b.png", 30.0, 0.2)))
    content = json.loads(
        write_json(metrics(same, {}), tmp_path / "metrics.json").read_text(),
        parse_constant=lambda c: pytest.fail(f"{c} is not JSON"),
    )
    assert content["psnr"] is None
    assert [i["psnr"] for i in content["images"]] == [None, 30.0]
    with pytest.raises(ValueError):
        write_json({"psnr": math.nan}, tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text()) == content


def with_lpips(image: Measurement) -> Measurement:
    return replace(image, lpips=0.125, bicubic=replace(image.bicubic, lpips=0.5))


def test_no_ssim_and_lpips_where_there_is_none() -> None:
    small = replace(TWO.images[0], ssim=math.nan)
    result = Benchmark((small, TWO.images[1]))
    content = metrics(result, {})
    assert content["ssim"] is None
    assert "lpips" not in content
    measured = Benchmark(tuple(map(with_lpips, TWO.images)))
    content = metrics(measured, {})
    assert (content["lpips"], content["bicubic"]["lpips"]) == (0.125, 0.5)
    out = io.StringIO()
    print_table(benchmark_table(measured, "m"), Console(file=out))
    assert "LPIPS" in out.getvalue()
    assert "0.7125  0.1250" in out.getvalue()


@pytest.mark.parametrize(
    ("routing", "words"),
    [
        (RoutingConfig(k=0.5), "k = 0.5"),
        (RoutingConfig("adaptive"), "adaptive"),
        (RoutingConfig(fixed_class=1), "class 1 alone"),
    ],
)
def test_words(routing: RoutingConfig, words: str) -> None:
    assert routing.description == words


def test_the_papers_rows_are_marked_as_published() -> None:
    out = io.StringIO()
    beside = published_points("Set14", "carn")
    print_table(benchmark_table(TWO, "m", published=beside), Console(file=out, width=200))
    lines = out.getvalue().splitlines()
    [row] = [line for line in lines if "CARN-PCSR" in line]
    assert "(published, Appendix Table 1)" in row
    assert row.split()[-7:] == ["26.48", "-", "-", "-", "8.140", "-", "-"]
    assert len([line for line in lines if "published, Appendix" in line]) == 4


def test_what_was_written_is_read_back() -> None:
    """Infinite and unmeasured numbers, and what was measured, included."""
    first = replace(
        TWO.images[0],
        psnr=math.inf,
        psnr_y=None,
        model="m",
        backbone="carn",
        classes=2,
        parameters=7,
        routing=RoutingConfig(k=0.5),
        scale=(4.0, 3.7),
        protocol="whole",
        data_root="a/Set5",
    )
    content = json.loads(json.dumps(metrics(Benchmark((first,)), {"threads": 1}), allow_nan=False))
    assert "psnr_y" not in content
    assert (content["psnr"], content["k"], content["scale"]) == (None, 0.5, [4.0, 3.7])
    assert Measurement.from_json(content) == mean([first])
    assert mean([first]).dataset == "Set5"
    assert Measurement.from_json({"ssim": None, "routing": None}).routing is None
    assert math.isnan(Measurement.from_json({"ssim": None}).ssim or 0)


def test_csv() -> None:
    row = {"job": 3, **TWO.mean.numbers()}
    head, line = csv_table([row]).splitlines()
    cells = dict(zip(head.split(","), line.split(","), strict=True))
    assert (cells["job"], cells["share"], cells["bicubic/psnr"]) == ("3", "0.3000 0.7000", "26.5")


def test_every_number_reaches_every_report() -> None:
    """Whatever fields there are: JSON, what W&B gets, the table and CSV."""
    fields = measured_fields()
    values = {name: 1.5 for name in fields if name != "share"}
    row = Measurement(**values, share=(0.25, 0.75), name="m")
    assert Measurement.from_json(row.to_json()) == replace(row, name="")
    assert row.numbers().keys() == fields.keys()
    assert {key.split("/")[0] for key in row.flat()} == fields.keys()
    assert csv_table([row.numbers()]).splitlines()[0].split(",") == list(row.numbers())
    headings = [column.heading for column in benchmark_table(Benchmark((row,)), "m").columns]
    assert headings == ["", *(field.metadata["heading"] for field in fields.values())]
    assert markdown_table(numbers([row]), [row]).count("1.5") == len(values)

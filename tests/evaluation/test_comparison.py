"""Evaluations side by side: rows, settings, seeds, curves and their Bjontegaard differences."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest
import yaml
from rich.console import Console

from pcsr_lightning.evaluation.bjontegaard import bjontegaard_difference
from pcsr_lightning.evaluation.comparison import curves_of, finished_jobs, pools_of, rows_of
from pcsr_lightning.evaluation.jobs import Settings, swept
from pcsr_lightning.evaluation.measurement import Measurement, Quality
from pcsr_lightning.evaluation.overview import jobs_table, report_jobs
from pcsr_lightning.inference import RoutingConfig

KS = (1.0, 0.0, -0.5)


def settings(folder: Path, overrides: Sequence[str], config: dict) -> None:
    """As Hydra leaves them."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))


def point(model: str, k: float, psnr: float, gflops: float, **more: object) -> Measurement:
    return Measurement(
        model=str(model), backbone="fsrcnn", classes=2, routing=RoutingConfig(k=k), psnr=psnr,
        gmacs=gflops / 3, gflops_published=gflops, share=(0.4, 0.6), scale=(4.0, 4.0),
        protocol="whole", data_root="data/Set5", pictures=5, bicubic=Quality(psnr=26.69),
        **more,
    )  # fmt: skip


def curve(model: str, up: float = 0.0, cost: float = 1.0) -> list[Measurement]:
    psnrs, gflops = (28.5, 28.9, 29.0), (20.0, 30.0, 40.0)
    return [point(model, k, p + up, cost * g) for k, p, g in zip(KS, psnrs, gflops, strict=True)]


def job(folder: Path, number: int, points: list[Measurement], *overrides: str) -> None:
    """A finished job: one point in metrics.json, several in sweep.json."""
    path = folder / str(number)
    given = dict(word.split("=", 1) for word in overrides)
    settings(path, overrides, {"model": points[0].model, **given})
    if len(points) == 1:
        (path / "metrics.json").write_text(json.dumps(points[0].to_json() | {"published": []}))
        return
    content = {**points[0].setup(), "points": [p.to_json() for p in points]}
    (path / "sweep.json").write_text(json.dumps(content))


def report(folder: Path, reference: str | None = None) -> str:
    out = io.StringIO()
    report_jobs(finished_jobs(folder), folder, Console(file=out, width=200), reference)
    return out.getvalue()


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_two_models_share_table_figure_and_differences(tmp_path: Path) -> None:
    a, b = curve("a-x4"), curve("b-x4", up=0.1, cost=1.2)
    job(tmp_path, 0, a, "model=a-x4", "sweep=k")
    job(tmp_path, 1, b, "model=b-x4", "sweep=k")
    said = report(tmp_path)
    rows = read(tmp_path / "table.csv")
    assert [(r["model"], r["routing"]) for r in rows] == [
        ("bicubic", ""),
        *((m, f"k = {k:g}") for m in ("a-x4", "b-x4") for k in KS),
    ]
    assert [float(r["psnr"]) for r in rows[1:]] == [p.psnr for p in (*a, *b)]
    assert {p.name for p in tmp_path.glob("psnr_flops*")} == {"psnr_flops.png", "psnr_flops.pdf"}
    [bd] = read(tmp_path / "bd.csv")
    expected = bjontegaard_difference(
        *([(p.gflops_published, p.psnr) for p in points] for points in (a, b))
    )
    assert (bd["model"], bd["against"]) == ("b-x4", "a-x4")
    assert float(bd["bd_psnr"]) == pytest.approx(expected.psnr)
    assert float(bd["bd_rate"]) == pytest.approx(expected.rate)
    assert f"{expected.psnr:+.3f}" in said
    assert f"{expected.rate:+.1f}" in said
    for name in ("table.tex", "bd.tex", "psnr_flops.pdf"):
        assert str(tmp_path / name) in said
    [bd] = read(tmp_path / "bd.csv") if report(tmp_path, reference="b-x4") else []
    assert (bd["model"], bd["against"]) == ("a-x4", "b-x4")


def test_no_number_and_one_line_where_curves_do_not_overlap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job(tmp_path, 0, curve("a"), "model=a")
    job(tmp_path, 1, curve("b", up=2, cost=10), "model=b")
    job(tmp_path, 2, curve("original")[:1], "model=original")
    said = report(tmp_path, reference="nobody")
    missing, reference = sorted(caplog.messages)
    assert missing == (
        "b against a: no common GFLOPs (20 to 40 and 200 to 400), "
        "no common PSNR (28.5 to 29 and 30.5 to 31 dB)"
    )
    assert reference.startswith("reference=nobody: has no curve here; a takes its place")
    [bd] = read(tmp_path / "bd.csv")
    assert (bd["bd_psnr"], bd["bd_rate"]) == ("", "")
    assert "nan" not in said


def train(folder: Path, seed: int, **more: object) -> Path:
    """The run folder of a training."""
    path = folder / f"run-{seed}-{'-'.join(map(str, more.values()))}"
    words = [f"seed={seed}", *(f"{key}={value}" for key, value in more.items())]
    config = {"seed": seed, "init": f"first-{seed}", "output": str(path), "lr": 1e-3, **more}
    settings(path, words, config)
    return path


def test_seeds_are_pooled_and_paired(tmp_path: Path) -> None:
    values = {0: (28.1, 28.3), 1: (28.2, 28.5), 2: (28.3, 28.2)}
    number = 0
    for seed, psnrs in values.items():
        for lr, psnr in zip((1e-3, 2e-3), psnrs, strict=True):
            run = train(tmp_path / "runs", seed, lr=lr)
            for k, more in ((0.0, 0.0), (1.0, -0.5)):
                measured = point(str(run), k, psnr + more, 30 - 5 * k)
                job(tmp_path / "all", number, [measured], f"model={run}")
                number += 1
    said = report(tmp_path / "all")
    rows = read(tmp_path / "all" / "seeds.csv")
    assert [(r["lr"], r["routing"], r["seeds"]) for r in rows] == [
        ("0.001", "k = 0", "3"),
        ("0.001", "k = 1", "3"),
        ("0.002", "k = 0", "3"),
        ("0.002", "k = 1", "3"),
    ]
    first = [a for a, _ in values.values()]
    assert float(rows[0]["psnr"]) == pytest.approx(mean(first))
    assert float(rows[0]["psnr_sd"]) == pytest.approx(stdev(first))
    differences = [b - a for a, b in values.values()]
    assert rows[0]["psnr_over_first"] == ""
    assert float(rows[2]["psnr_over_first"]) == pytest.approx(mean(differences))
    assert float(rows[2]["psnr_over_first_sd"]) == pytest.approx(stdev(differences))
    assert f"{mean(first):.3f} +- {stdev(first):.3f}" in said
    assert (
        rf"{mean(first):.3f} $\pm$ {stdev(first):.3f}"
        in (tmp_path / "all" / "seeds.tex").read_text()
    )
    curves = [c for _, c in curves_of(pools_of(rows_of(finished_jobs(tmp_path / "all"))))]
    assert [c.name for c in curves] == ["fsrcnn-pcsr, lr=0.001", "fsrcnn-pcsr, lr=0.002"]
    assert curves[0].points[0].psnr == pytest.approx(mean(first))
    assert curves[0].deviations == pytest.approx((stdev(first), stdev(first)))
    table = read(tmp_path / "all" / "table.csv")
    assert [(r["seed"], r["lr"]) for r in table[1:4]] == [
        ("0", "0.001"), ("0", "0.001"), ("0", "0.002")
    ]  # fmt: skip


@pytest.mark.parametrize("differs", ["setting", "seed twice", "no training"])
def test_only_what_differs_in_its_seed_alone_is_pooled(differs: str, tmp_path: Path) -> None:
    if differs == "setting":
        models = [train(tmp_path, 0, lr=1e-3), train(tmp_path, 1, lr=2e-3)]
    elif differs == "seed twice":
        models = [train(tmp_path / name, 0) for name in ("one", "two")]
    else:
        models = [Path("fsrcnn-pcsr-x4"), Path("carn-pcsr-x4")]
    for n, model in enumerate(models):
        job(tmp_path / "all", n, [point(str(model), 0.0, 28.0, 30.0)], f"model={model}")
    assert "standard deviation" not in report(tmp_path / "all")
    assert not (tmp_path / "all" / "seeds.csv").exists()


def test_settings_that_differ_are_columns(tmp_path: Path) -> None:
    rule = RoutingConfig(k=0.0, cost="proportional")
    job(tmp_path, 0, [point("m", 0.0, 28.0, 30.0)], "routing.cost=softmax", "target_psnr=28")
    other = replace(point("m", 0.0, 29.0, 31.0), routing=rule, data_root="Set14", data_name="S")
    job(tmp_path, 1, [other], "routing.cost=proportional", "data.root=Set14", "target_psnr=28")
    table = jobs_table(rows_of(finished_jobs(tmp_path)))
    headings = [column.heading for column in table.columns]
    assert headings[:4] == ["model", "pictures", "routing.cost", "routing"]
    assert [[c.cell(row) for c in table.columns[:4]] for s in table.sections for row in s] == [
        ["bicubic", "Set5", "", ""],
        ["m", "Set5", "softmax", "k = 0"],
        ["bicubic", "S", "", ""],
        ["m", "S", "proportional", "k = 0"],
    ]


def test_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    job(tmp_path, 0, [point("here/m.ckpt", 0.0, 28.0, 30.0)])
    job(tmp_path, 1, [point("there/m.ckpt", 0.0, 28.0, 30.0)])
    assert [row.model for row in rows_of(finished_jobs(tmp_path))] == [
        "here/m.ckpt", "there/m.ckpt"
    ]  # fmt: skip


def test_a_setting_left_at_its_default_counts_as_that(tmp_path: Path) -> None:
    config = {"lr": 0.001, "scale": [2, 4], "backbone": {"name": "carn"}, "output": "x"}
    settings(tmp_path / "a", ["lr=1e-3", "scale=[2,4]", "+output=y"], config)
    settings(tmp_path / "b", ['backbone="fsrcnn"'], config | {"backbone": {"name": "fsrcnn"}})
    found = [Settings.of(tmp_path / name) for name in "ab"]
    jobs = [job for job in found if job is not None]
    assert swept(jobs) == ["backbone"]
    assert [job.text("backbone") for job in jobs] == ["carn", "fsrcnn"]
    assert jobs[0].text("scale") == "[2,4]"
    assert Settings.of(tmp_path) is None

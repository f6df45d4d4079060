"""What loggers keep of evaluations: real runs, W&B's offline, read back from their files."""

import csv
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.commands import run_command
from tests.small import small_pcsr

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation import Measurement, Quality
from pcsr_lightning.evaluation.log_results import overview_rows
from pcsr_lightning.evaluation.loggers import RunLoggers, group_name
from pcsr_lightning.evaluation.published import published_points
from pcsr_lightning.weights import save

Records = Callable[[Path], Iterator[Any]]


@dataclass
class Logged:
    """A run as its file tells it."""

    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: set[str] = field(default_factory=set)
    exit_code: int | None = None


def read(file: Path, records: Records) -> Logged:
    logged = Logged()

    def keep(items: Any, into: dict[str, Any]) -> None:
        for item in items:
            into[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)

    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            logged.name, logged.group = record.run.display_name, record.run.run_group
            logged.job_type, logged.tags = record.run.job_type, tuple(record.run.tags)
            keep(record.run.config.update, logged.config)
        elif kind == "config":
            keep(record.config.update, logged.config)
        elif kind == "summary":
            keep(record.summary.update, logged.summary)
        elif kind == "history":
            logged.history |= {i.key or i.nested_key[0] for i in record.history.item}
        elif kind == "exit":
            logged.exit_code = record.exit.exit_code
    return logged


def runs(folder: Path, records: Records) -> list[Logged]:
    return [read(file, records) for file in sorted(folder.glob("**/offline-run-*/*.wandb"))]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``m2``, a model; ``Test2K``: two small pictures."""
    root = tmp_path_factory.mktemp("files")
    save(small_pcsr(), root / "m2")
    (root / "Test2K" / "sub").mkdir(parents=True)
    Image.effect_noise((72, 56), 60).convert("RGB").save(root / "Test2K" / "a.png")
    Image.effect_noise((48, 64), 60).convert("RGB").save(root / "Test2K" / "sub" / "b.png")
    return root


def evaluate(files: Path, cwd: Path, *settings: str, code: int = 0, **env: str) -> str:
    words = [*settings, f"model={files}/m2.safetensors", f"data.root={files}/Test2K", "threads=1"]
    env["WANDB_SILENT"] = "true"
    err = run_command("evaluate", *words, cwd=cwd, env=env, code=code).err
    wandb.teardown()  # as at a process's end: the files of its runs are whole then
    return err


@pytest.mark.parametrize("sweep", ["jobs", "values"])
def test_a_group_of_runs_to_compare(
    sweep: str, files: Path, tmp_path: Path, records: Records
) -> None:
    """One run a value and one over all, whether each value is a job or all are swept in one."""
    offline = ("logger=wandb", "logger.wandb.offline=true", "published=true")
    if sweep == "jobs":
        evaluate(
            files, tmp_path, "-m", *offline, "routing.k=0,1", "hydra.sweep.dir=all",
            "save_images=true",
        )  # fmt: skip
    else:
        evaluate(files, tmp_path, *offline, "sweep=k", "sweep_values=[0,1]", "hydra.run.dir=all")
    found = {run.name: run for run in runs(tmp_path, records)}
    assert len(found) == 3
    assert {run.group for run in found.values()} == {f"{tmp_path.name}-all"}
    assert {run.exit_code for run in found.values()} == {0}
    for n, k in enumerate((0, 1)):
        run = found[f"m2 on Test2K x4, k = {k}"]
        assert run.job_type == "evaluation"
        assert set(run.tags) == {"fsrcnn", "Test2K", "x4"}
        assert (
            run.config["routing"]["value"]["k"] == k if "value" in run.config["routing"] else True
        )
        if sweep == "jobs":
            expected = json.loads((tmp_path / "all" / str(n) / "metrics.json").read_text())
            assert {"images", "pictures/a.png", "pictures/sub/b.png"} <= run.history
        else:
            whole = json.loads((tmp_path / "all" / "sweep.json").read_text())
            expected = whole["points"][n] | {"bicubic": whole["bicubic"]}
        for key, value in Measurement.from_json(expected).flat().items():
            assert run.summary[key] == pytest.approx(value), key
        assert run.summary["k"] == k
    [overview] = (run for run in found.values() if run.job_type == "overview")
    assert {"results", "psnr_flops"} <= overview.history
    [table] = tmp_path.glob("**/media/table/results*.json")
    rows = json.loads(table.read_text())
    names = [row[0] for row in rows["data"]]
    assert [name.rsplit(", ", 1)[-1] for name in names[:2]] == ["k = 0", "k = 1"]
    theirs = published_points("Test2K", "fsrcnn")
    assert theirs
    assert names[2:] == [f"{p.model} on Test2K (published, {p.source})" for p in theirs]
    assert len(list(tmp_path.glob("**/media/images/psnr_flops*.png"))) == 1
    if sweep == "jobs":
        check_pictures_and_table(tmp_path)


def check_pictures_and_table(folder: Path) -> None:
    """Of each job: a row for every picture, and each picture beside its class map."""
    tables = sorted(folder.glob("**/media/table/images*.json"))
    assert len(tables) == 2
    content = json.loads((folder / "all" / "0" / "metrics.json").read_text())
    rows = json.loads(tables[0].read_text())
    first = dict(zip(rows["columns"], rows["data"][0], strict=True))
    assert (first["name"], first["height"], first["width"]) == ("a.png", 56, 72)
    by_job = [json.loads(t.read_text())["data"][0][rows["columns"].index("psnr")] for t in tables]
    assert content["images"][0]["psnr"] in by_job
    sizes = set()
    for path in folder.glob("**/media/images/pictures/**/*.png"):
        with Image.open(path) as picture:
            sizes.add(picture.size)
    assert sizes == {(2 * 72, 56), (2 * 48, 64)}


def test_a_single_run_that_fails_is_marked(files: Path, tmp_path: Path, records: Records) -> None:
    """And W&B's own variable says offline too."""
    bad = tmp_path / "one" / "pictures" / "a.png"
    bad.mkdir(parents=True)
    words = ("logger=wandb", "save_images=true", "hydra.run.dir=one", "logger.wandb.name=mine")
    more = ("logger.wandb.group=ours", "logger.wandb.tags=[x]")
    said = evaluate(files, tmp_path, *words, *more, code=1, WANDB_MODE="offline")
    assert "error: " in said
    [run] = runs(tmp_path, records)
    assert (run.name, run.group, run.tags, run.exit_code) == ("mine", "ours", ("x",), 1)


def test_wandb_is_not_imported_where_it_was_not_chosen(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import fails
    evaluate(files, tmp_path, "logger=csv")


def test_what_wandb_does_not_take(tmp_path: Path) -> None:
    wandb = {"_target_": "lightning.pytorch.loggers.WandbLogger", "offline": True}
    wandb["save_dir"] = str(tmp_path)
    runs = RunLoggers({"wandb": {**wandb, "colour": "red"}}, {})
    with pytest.raises(ConfigError, match=r"logger\.wandb: .*colour"), runs.run("name"):
        raise AssertionError("started")


def test_other_loggers_of_lightning_keep_the_numbers(files: Path, tmp_path: Path) -> None:
    """A folder for each run of a sweep."""
    evaluate(files, tmp_path, "logger=csv", "sweep=k", "sweep_values=[0,1]", "hydra.run.dir=all")
    points = json.loads((tmp_path / "all" / "sweep.json").read_text())["points"]
    for point in points:
        name = f"m2_on_Test2K_x4_k_=_{point['k']:g}"
        with (tmp_path / "all" / "logs" / name / "metrics.csv").open() as file:
            [row] = csv.DictReader(file)
        assert float(row["psnr"]) == pytest.approx(point["psnr"])
        assert float(row["k"]) == point["k"]
    evaluate(files, tmp_path, "logger=tensorboard", "hydra.run.dir=one", "save_images=true")
    events = EventAccumulator(str(next(tmp_path.glob("one/tensorboard/*"))))
    events.Reload()
    assert set(events.Tags()["images"]) == {"pictures/a.png", "pictures/sub/b.png"}
    [psnr] = events.Scalars("psnr")
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert psnr.value == pytest.approx(metrics["psnr"])


def test_names_and_rows() -> None:
    assert group_name(Path("/a/sweeps/2026-01-01")) == "sweeps-2026-01-01"
    measured = Measurement(
        model="m", data_root="d", psnr=math.inf, gmacs=1.0, gflops_published=2.0, share=(1.0,),
        bicubic=Quality(psnr=2.0), seconds=3.0,
    )  # fmt: skip
    [row] = overview_rows([measured])
    assert row == {
        "name": "m on d, original", "psnr": None, "gmacs": 1.0, "gflops_published": 2.0,
        "seconds": 3.0, "share/0": 1.0, "bicubic/psnr": 2.0,
    }  # fmt: skip

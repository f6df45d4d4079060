"""The table at the end of a multirun of trainings."""

import csv
import json
from pathlib import Path
from statistics import mean, stdev

import pytest
from tests.commands import SMALL_TRAINING, run_command


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_over_seeds_and_a_setting(tmp_path: Path) -> None:
    words = [*SMALL_TRAINING, "stage=1", "trainer.max_steps=2", "seed=0,1,2"]
    words += ["optimizer.lr=1e-3,1e-1", "hydra.sweep.dir=all"]
    done = run_command("train", "-m", *words, cwd=tmp_path, code=0)
    folder = tmp_path / "all"
    psnr = [json.loads((folder / f"{n}/run.json").read_text())["val_psnr"] for n in range(6)]
    rows = read(folder / "table.csv")
    assert [(r["seed"], r["optimizer.lr"], r["steps"]) for r in rows] == [
        (str(seed), lr, "2") for seed in range(3) for lr in ("0.001", "0.1")
    ]
    assert [float(r["val_psnr"]) for r in rows] == psnr
    assert [Path(r["folder"]).name for r in rows] == list("012345")
    low, high = read(folder / "seeds.csv")
    assert (low["optimizer.lr"], low["seeds"], high["optimizer.lr"]) == ("0.001", "3", "0.1")
    for row, values in ((low, psnr[::2]), (high, psnr[1::2])):
        assert float(row["val_psnr"]) == pytest.approx(mean(values))
        assert float(row["val_psnr_sd"]) == pytest.approx(stdev(values))
    differences = [b - a for a, b in zip(psnr[::2], psnr[1::2], strict=True)]
    assert low["over_first"] == ""
    assert float(high["over_first"]) == pytest.approx(mean(differences))
    assert float(high["over_first_sd"]) == pytest.approx(stdev(differences))
    assert f"{mean(psnr[::2]):.3f} +- {stdev(psnr[::2]):.3f}" in done.out
    assert (folder / "seeds.tex").read_text().count(r"\pm") == 3


def test_no_table_where_nothing_was_swept(tmp_path: Path) -> None:
    words = [*SMALL_TRAINING, "stage=1", "trainer.max_steps=1", "hydra.sweep.dir=all"]
    done = run_command("train", "-m", *words, cwd=tmp_path, code=0)
    assert "all trainings" not in done.out
    assert not (tmp_path / "all" / "table.csv").exists()

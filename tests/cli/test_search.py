"""Searches with Optuna: real sweeps of a few trials, and what is refused before the first."""

import csv
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tests.commands import SMALL_TRAINING, Done, run_command
from tests.small import small_pcsr, write_textures

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.search import Objectives
from pcsr_lightning.evaluation.trials import Trial, pareto, searched_keys
from pcsr_lightning.weights import save

OPTUNA = ("hydra/sweeper=optuna", "hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=2")


def train(cwd: Path, *words: str, code: int = 0) -> Done:
    settings = (*SMALL_TRAINING, "trainer.max_steps=1", "logger=none", "hydra.sweep.dir=all")
    env = {"XDG_CACHE_HOME": str(cwd / "cache")}
    return run_command("train", *settings, *words, cwd=cwd, env=env, code=code)


def test_one_objective(tmp_path: Path) -> None:
    direction = "hydra.sweeper.direction=maximize"
    done = train(tmp_path, "-m", *OPTUNA, direction, "optimizer.lr=interval(1e-4,1e-2)")
    best = OmegaConf.load(tmp_path / "all" / "optimization_results.yaml")
    records = [json.loads((tmp_path / f"all/{n}/run.json").read_text()) for n in (0, 1)]
    psnr = [record["val_psnr"] for record in records]
    assert best.best_value == pytest.approx(max(psnr), abs=1e-3)
    kept = json.loads((tmp_path / "all" / "search.json").read_text())
    assert kept["directions"] == ["maximize"]
    assert [row["val/psnr"] for row in kept["trials"]] == pytest.approx(psnr, abs=1e-3)
    assert sum(row["best"] for row in kept["trials"]) == 1
    assert "val/psnr (maximize)" in done.out


def test_the_search_that_ships_with_two_objectives(tmp_path: Path) -> None:
    """Both stages in each trial; the numbers are those of the finished model's metrics.json."""
    done = train(tmp_path, "hparams_search=psnr_gmacs", "hydra.sweeper.n_trials=2")
    content = [json.loads((tmp_path / f"all/{n}/metrics.json").read_text()) for n in (0, 1)]
    with (tmp_path / "all" / "search.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val/psnr"]) for row in rows] == [job["psnr"] for job in content]
    assert [float(row["val/gmacs"]) for row in rows] == [job["gmacs"] for job in content]
    assert rows[0].keys() == {
        "trial", "optimizer.lr", "stage.w_avg", "val/psnr", "val/gmacs", "state"
    }  # fmt: skip
    lines = done.out[done.out.index("all trials") :].splitlines()
    assert "val/gmacs (minimize)" in lines[1]
    marked = [row["state"] == "Pareto" for row in rows]
    assert ["Pareto" in line for line in lines[2:4]] == marked
    assert any(marked)


def test_a_trial_that_fails_is_left_out(tmp_path: Path) -> None:
    done = train(
        tmp_path, "-m", *OPTUNA, "hydra/sweeper/sampler=grid", "hydra.sweeper.direction=maximize",
        "stage=all", "num_classes=2,7", code=1,
    )  # fmt: skip
    kept = json.loads((tmp_path / "all" / "search.json").read_text())["trials"]
    assert {(row["num_classes"], row["best"]) for row in kept} == {("2", True), ("7", False)}
    assert "failed" in done.out
    assert "Got 'failed: " in done.out + done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("objective=val/psnrr",), "objective=val/psnrr: this is not measured; there are val/psnr"),
        (
            ("objective=[val/psnr,val/gmacs]",),
            "write hydra.sweeper.direction=[maximize,minimize]",
        ),
        (("hydra.sweeper.direction=minimize",), "write hydra.sweeper.direction=maximize"),
        (("objective=3",), "objective=3: expected the name"),
    ],
)
def test_what_cannot_be_optimised_is_refused_before_training(
    words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    swept = ("-m", *OPTUNA, "hydra.sweeper.direction=maximize", "optimizer.lr=interval(1e-4,1e-2)")
    done = train(tmp_path, *swept, *words, code=1)
    [line] = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert says in line
    assert not list(tmp_path.rglob("*.ckpt"))


def test_an_evaluation(tmp_path: Path) -> None:
    save(small_pcsr(), tmp_path / "m2")
    root = write_textures(tmp_path / "pictures", {"a.png": (48, 64)})
    words = (f"model={tmp_path}/m2.safetensors", f"data.root={root}", "threads=1")
    search = (*OPTUNA, "hydra.sweeper.direction=[maximize,minimize]", "objective=[psnr,gmacs]")
    done = run_command(
        "evaluate", "-m", *words, *search, "routing.k=interval(-1.0,2.0)", "hydra.sweep.dir=all",
        cwd=tmp_path, code=0,
    )  # fmt: skip
    rows = json.loads((tmp_path / "all" / "search.json").read_text())["trials"]
    for n, row in enumerate(rows):
        content = json.loads((tmp_path / f"all/{n}/metrics.json").read_text())
        assert (row["psnr"], row["gmacs"]) == (content["psnr"], content["gmacs"])
    assert "all trials" in done.out
    assert "psnr_flops.png" in done.out
    done = run_command("evaluate", *words, "objective=psnrr", cwd=tmp_path, code=1)
    assert done.err.startswith("error: objective=psnrr: this is not measured; there are psnr, ")


def test_which_trials_are_the_best() -> None:
    def trial(job: int, *values: float) -> Trial:
        return Trial(job, {"a": str(job), "b": "1"}, dict(zip("xy", values, strict=False)))

    found = [trial(0, 1, 5), trial(1, 2, 5), trial(2, 3, 6), trial(3), trial(4, 2, 5)]
    assert pareto(found, ["maximize", "minimize"]) == {1, 2, 4}
    assert pareto([trial(0, 1.0), trial(1, 3.0), trial(2, 2.0)], ["minimize"]) == {0}
    assert searched_keys(found) == ["a"]
    assert searched_keys(found[:1]) == ["a", "b"]


def test_objectives() -> None:
    assert Objectives.of("psnr").names == ("psnr",)
    assert Objectives.of(OmegaConf.create(["psnr", "gmacs"])).names == ("psnr", "gmacs")
    for wrong in (None, [], 3, [3]):
        with pytest.raises(ConfigError, match="objective="):
            Objectives.of(wrong)

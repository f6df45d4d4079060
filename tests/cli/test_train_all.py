"""``python -m pcsr_lightning.train stage=all``: whole models in one job, and sweeps over ``M``."""

import csv
import itertools
import json
import math
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from tests.commands import SMALL_TRAINING, Done, run_command, start

from pcsr_lightning import conf_dir
from pcsr_lightning.errors import ConfigError, TrainingError
from pcsr_lightning.evaluation import Measurement
from pcsr_lightning.training import run_all
from pcsr_lightning.training.m_sweep import gather, paper_rows, sweep_table
from pcsr_lightning.training.stage_configs import plan_stages, stage_overrides
from pcsr_lightning.weights import load

SMALL = (
    *SMALL_TRAINING,
    "data.batch_size=4",
    "data.augment=false",  # drawn by each process for itself
    "trainer.max_steps=2",
)
IN_ITS_FOLDER = {
    ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "checkpoints/best.ckpt",
    "checkpoints/last.ckpt", "logs/hparams.yaml", "logs/metrics.csv", "model.json",
    "model.safetensors", "pictures.json", "run.json", "train.log",
}  # fmt: skip


def with_small(words: tuple[str, ...]) -> list[str]:
    """Options, such as -m, come before all settings."""
    return [*(w for w in words if w[0] == "-"), *SMALL, *(w for w in words if w[0] != "-")]


def environment(cwd: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}


def train(cwd: Path, *words: str, code: int = 0) -> Done:
    return run_command("train", *with_small(words), cwd=cwd, env=environment(cwd), code=code)


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def same_weights(one: Path, two: Path) -> bool:
    a, b = load(one).state_dict(), load(two).state_dict()
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep over M = 2 and 3: its folder, and what it printed."""
    cwd = tmp_path_factory.mktemp("sweep")
    done = train(cwd, "-m", "stage=all", "num_classes=2,3", "stage.w_avg=2", "hydra.sweep.dir=all")
    return cwd / "all", done.out


def table_rows(out: str) -> list[str]:
    lines = out[out.index("all numbers of classes") :].splitlines()[2:]
    return list(itertools.takewhile(lambda line: "-pcsr-" in line, lines))


def test_a_sweep_ends_in_one_table(sweep: tuple[Path, str]) -> None:
    folder, out = sweep
    jobs = [json.loads((folder / str(n) / "metrics.json").read_text()) for n in range(2)]
    rows = table_rows(out)
    assert len(rows) == 2
    for row, classes, job in zip(rows, (2, 3), jobs, strict=True):
        model = load(folder / str(classes - 2))
        count = sum(p.numel() for p in model.parameters())
        assert re.match(rf" *fsrcnn-pcsr-{classes}class +{classes} +{count:,} ", row)
        assert f"{job['psnr']:.2f}" in row
        assert f"{job['gflops_published']:.3f}" in row
        assert " / ".join(f"{100 * s:.1f}" for s in job["share"]) in row
        assert len(job["share"]) == classes == job["classes"]
    kept = json.loads((folder / "m_sweep.json").read_text())
    assert [job["psnr"] for job in kept["jobs"]] == [job["psnr"] for job in jobs]
    assert kept["failed"] == kept["published"] == []
    with (folder / "m_sweep.csv").open() as file:
        sheet = list(csv.DictReader(file))
    assert [line["classes"] for line in sheet] == ["2", "3"]
    assert [float(line["gmacs"]) for line in sheet] == [job["gmacs"] for job in jobs]


def test_each_stage_has_a_whole_run_folder_and_builds_on_the_one_before(
    sweep: tuple[Path, str],
) -> None:
    job = sweep[0] / "1"
    models = []
    for number in range(1, 4):
        folder = job / f"stage-{number}"
        assert files(folder) == IN_ITS_FOLDER
        record = json.loads((folder / "run.json").read_text())
        assert (record["stage"], record["steps"], record["num_classes"]) == (str(number), 2, 3)
        kept = OmegaConf.load(folder / ".hydra" / "config.yaml")
        assert kept.stage.name == str(number)
        assert ("teacher" in kept.stage) == (number == 1)  # its own file's
        assert kept.stage.w_avg == 2
        assert f"stage {number}" in (folder / "train.log").read_text() or number == 1
        models.append(load(folder).state_dict())
    for earlier, later in itertools.pairwise(models):
        frozen = [key for key in earlier if not key.startswith("classifier")]
        assert all(torch.equal(earlier[key], later[key]) for key in frozen)
    assert same_weights(job, job / "stage-3")
    assert json.loads((job / "run.json").read_text())["stage"] == "3"


def test_what_is_measured_is_what_training_validated(sweep: tuple[Path, str]) -> None:
    for job in (sweep[0] / "0", sweep[0] / "1"):
        measured = json.loads((job / "metrics.json").read_text())
        assert measured["pictures"] == 1
        record = json.loads((job / "run.json").read_text())
        assert measured["psnr"] == pytest.approx(record["val_psnr"], abs=2e-3)


def test_the_same_sweep_goes_on_and_names_a_job_that_failed(sweep: tuple[Path, str]) -> None:
    folder = sweep[0]
    before = {p: p.stat().st_mtime_ns for p in folder.glob("[01]/**/model.safetensors")}
    assert len(before) == 7
    words = ("-m", "stage=all", "num_classes=2,3,7", "stage.w_avg=2", "hydra.sweep.dir=all")
    done = train(folder.parent, *words, code=1)
    assert {p: p.stat().st_mtime_ns for p in folder.glob("[01]/**/model.safetensors")} == before
    assert table_rows(done.out) == table_rows(sweep[1])
    last = [line for line in done.err.splitlines() if line.startswith("error: job")]
    assert len(last) == 1
    assert re.search(
        r"job 2 \(.*num_classes=7.*\): stage 7 of stage=all: stage=7: there is no", last[0]
    )
    [failed] = json.loads((folder / "m_sweep.json").read_text())["failed"]
    assert failed["job"] == 2


@pytest.mark.slow
def test_killed_in_its_second_stage_it_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    words = (
        "stage=all", "num_classes=2", "trainer.max_steps=40", "trainer.log_every_n_steps=5",
        "callbacks.last.every_n_train_steps=10",
    )  # fmt: skip
    train(tmp_path, *words, "hydra.run.dir=whole")
    folder = tmp_path / "killed"
    killed = with_small((*words, "hydra.run.dir=killed"))
    quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
    env = os.environ | environment(tmp_path)
    with start("pcsr_lightning.train", *killed, cwd=tmp_path, env=env, **quiet) as running:
        last = folder / "stage-2" / "checkpoints" / "last.ckpt"
        end = time.monotonic() + 200
        while not last.is_file() and running.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        running.kill()
    assert last.is_file()
    assert not (folder / "stage-2" / "run.json").is_file()
    assert not (folder / "run.json").is_file()
    first = (folder / "stage-1" / "model.safetensors").stat().st_mtime_ns
    done = train(tmp_path, *words, "hydra.run.dir=killed")
    assert "stage 1 is finished" in done.out
    assert "stage 2 resumes" in done.out
    assert (folder / "stage-1" / "model.safetensors").stat().st_mtime_ns == first
    assert json.loads((folder / "run.json").read_text())["steps"] == 40
    assert same_weights(tmp_path / "whole", folder)
    with (folder / "stage-2" / "logs-2" / "metrics.csv").open() as file:
        assert min(int(line["step"]) for line in csv.DictReader(file)) >= 10  # not from the start
    measured = [
        json.loads((tmp_path / f / "metrics.json").read_text()) for f in ("whole", "killed")
    ]
    assert measured[0]["psnr"] == measured[1]["psnr"]


@pytest.mark.slow
def test_two_processes_train_all_stages_together(sweep: tuple[Path, str], tmp_path: Path) -> None:
    """Lightning starts the second process once, in the first stage; it stays for the others."""
    words = with_small(
        ("stage=all", "num_classes=2", "stage.w_avg=2", "hydra.run.dir=two", "trainer=ddp",
         "trainer.devices=2", "trainer.accelerator=cpu")
    )  # fmt: skip
    running = start(
        "pcsr_lightning.train", *words, cwd=tmp_path, env=os.environ | environment(tmp_path)
    )
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err[-3000:]
    one, two = (load(folder).state_dict() for folder in (sweep[0] / "0", tmp_path / "two"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-5)
    # One of them writes, measures and says so.
    assert out.count("M = 2: ") == 1
    assert files(tmp_path / "two" / "stage-2") > IN_ITS_FOLDER


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ckpt_path=x.ckpt",), r"ckpt_path=x\.ckpt: with stage=all .*hydra\.run\.dir"),
        (("num_classes=1",), r"num_classes=1: PCSR needs at least 2"),
        (("num_classes=7",), r"stage 7 of stage=all: stage=7: there is no"),
        (("init=nowhere",), r"no model is called 'nowhere'"),
    ],
)
def test_mistakes_are_one_line_before_training(
    words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    done = train(tmp_path, "stage=all", *words, code=1)
    [line] = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert re.search(says, line), line
    assert "what this stage trains" not in done.out + done.err


def test_a_folder_of_other_settings_is_not_gone_on_with(sweep: tuple[Path, str]) -> None:
    folder = sweep[0] / "0"
    words = ("stage=all", "num_classes=2", "stage.w_avg=2", f"hydra.run.dir={folder}")
    config = (folder / ".hydra" / "config.yaml").read_bytes()
    for other, says in (
        ("optimizer.lr=0.1", "optimizer.lr=0.001, and this command says optimizer.lr=0.1"),
        ("num_classes=3", "num_classes=2, and this command says num_classes=3"),
        ("init=fsrcnn-pcsr-x4", "init=None, and this command says init=fsrcnn-pcsr-x4"),
        ("trainer.accumulate_grad_batches=2", "accumulate_grad_batches=None, and this"),
        ("trainer.max_time=00:01:00", "trainer.max_time=None, and this command says"),
    ):
        assert says in train(folder, *words, other, code=1).err
    assert (folder / ".hydra" / "config.yaml").read_bytes() == config
    train(folder, *words, "logger=none", "threads=2", "trainer.val_check_interval=9")


def test_a_sweep_of_single_stages_goes_on_after_a_failure_too(tmp_path: Path) -> None:
    words = ("-m", "stage=1", "num_classes=1,2", "hydra.sweep.dir=all", "logger=none")
    done = train(tmp_path, *words, "trainer.max_steps=1", code=1)
    assert re.search(r"error: job 0 \(.*num_classes=1.*PCSR needs at least 2 classes", done.err)
    assert "all numbers of classes" not in done.out
    assert (tmp_path / "all" / "1" / "run.json").is_file()


def test_help_names_it(tmp_path: Path) -> None:
    out = train(tmp_path, "--help").out
    assert "-m stage=all num_classes=2,3,4" in out
    assert re.search(r"stage: .*\ball\b", out)


@contextmanager
def job(*words: str) -> Iterator[DictConfig]:
    """As within a job of Hydra's."""
    holder = HydraConfig.instance()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", list(words), return_hydra_config=True)
        holder.set_config(cfg)
        try:
            yield cfg
        finally:
            holder.cfg = None


@pytest.mark.parametrize("name", ["paper/carn_x4_m3", "paper/carn_multi", "quick/fsrcnn_x4"])
def test_a_stage_has_the_settings_that_it_has_alone(name: str, tmp_path: Path) -> None:
    more = (f"experiment={name}", "scheduler.warmup=7", "+trainer.min_steps=1", "seed=3")
    with job("stage=all", *more) as cfg:
        plans = plan_stages(cfg, tmp_path)
    for plan in plans:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            alone = compose("train", [*more, f'stage="{plan.label}"'])
        number = int(plan.label)
        alone.init = None if number == 1 else str(tmp_path / f"stage-{number - 1}")
        assert plan.cfg == alone


def test_words_reach_every_stage() -> None:
    words = [
        "stage=all", "stage.queries=1", "+stage.new=1", "~stage.seed", "num_classes=3",
        "data.root='a b'", "hydra.mode=MULTIRUN", "hydra.searchpath=[file://x]",
    ]  # fmt: skip
    own = ["stage=2", "num_classes=4", "seed=5", "stage.queries=7"]
    assert stage_overrides(words, own) == [
        "++stage.queries=1", "+stage.new=1", "~stage.seed", "num_classes=3", "data.root='a b'",
        "hydra.searchpath=[file://x]", "seed=5", 'stage="2"',
    ]  # fmt: skip


def test_listed_stages_and_their_parts(tmp_path: Path) -> None:
    listed = [["stage=1", "seed=4"], ["stage=1", "optimizer=muon"], ["stage=2", "stage.lr=0.5"]]
    stages = f"stages={json.dumps(listed)}"
    with job("stage=all", stages) as cfg:
        plans = plan_stages(cfg, tmp_path)
    assert [plan.label for plan in plans] == ["1", "1-part-2", "2"]
    assert [plan.cfg.seed for plan in plans] == [4, 0, 0]
    assert plans[1].cfg.optimizer._target_.endswith("Muon")
    assert plans[2].cfg.optimizer.lr == 0.5
    assert plans[2].cfg.init == str(tmp_path / "stage-1-part-2")
    for wrong, says in (
        ("stages=[]", "stages is empty"),
        ('stages=[["seed=1"]]', "without stage=NAME"),
        ("stages=[1]", "stages=.*expected a list"),
    ):
        with job("stage=all", wrong) as cfg, pytest.raises(ConfigError, match=says):
            plan_stages(cfg, tmp_path)


def test_two_trainings_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_all, "LOCK_TIMEOUT_S", 0.1)
    with (
        run_all.lock(tmp_path),
        pytest.raises(TrainingError, match="another process is training here"),
    ):
        run_all.lock(tmp_path)
    with run_all.lock(tmp_path):
        pass


def row(backbone: str, classes: int, scale: float = 4) -> Measurement:
    return Measurement(
        model=f"{backbone}-pcsr-{classes}class", backbone=backbone, classes=classes,
        parameters=168_970, scale=(scale, scale), pictures=8, psnr=math.inf, ssim=math.nan,
        gmacs=1.5, gflops_published=3.0, share=(1 / classes,) * classes,
    )  # fmt: skip


def test_the_papers_rows_stand_beside_those_of_their_backbone() -> None:
    beside = paper_rows([row("carn", 2), row("carn", 3), row("fsrcnn", 2)])
    # Table 4: three models on three sets.
    assert [(p.model, p.dataset, p.psnr, p.gflops) for p in beside[3:5]] == [
        ("CARN-PCSR-2class", "Test2K", 26.01, 64.0),
        ("CARN-PCSR-2class", "Test4K", 27.42, 260.0),
    ]
    assert len(beside) == 9
    assert paper_rows([row("fsrcnn", 2), row("carn", 2, scale=2)]) == []
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(sweep_table([row("carn", 2)], beside))
    text = console.export_text()
    assert re.search(r"carn-pcsr-2class +2 +168,970 +8 of validation +4 +inf +- +1\.500 ", text)
    assert re.search(r"CARN-PCSR-3class \(published, Table 4\) +3 +181,000 +Urban100 .*28\.6", text)


def test_jobs_without_a_result_are_failures(tmp_path: Path) -> None:
    for name in ("0", "1", "2", "10", "not a job"):
        (tmp_path / name).mkdir()
    (tmp_path / "0" / "failed.json").write_text('{"overrides": ["seed=1"], "error": "no disk"}')
    (tmp_path / "2" / "run.json").write_text("{}")  # a single stage
    rows, failures = gather(tmp_path)
    assert rows == {}
    assert [(f.job, f.overrides) for f in failures] == [(0, ("seed=1",)), (1, ()), (10, ())]
    assert gather(tmp_path / "nowhere") == ({}, [])

"""``evaluate`` by several processes finds what one finds, picture by picture, and fails as one."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.commands import run_command
from tests.small import small_pcsr, write_textures
from torch.multiprocessing.spawn import start_processes

from pcsr_lightning import conf_dir
from pcsr_lightning.cli.routing_group import register_routing
from pcsr_lightning.distributed import ProcessGroup
from pcsr_lightning.errors import PCSRError
from pcsr_lightning.evaluation import spawned
from pcsr_lightning.evaluation.config import EvaluationConfig
from pcsr_lightning.weights import save

Run = Callable[..., tuple[str, str]]
VALUES = "sweep_values=[-1,0,0.5]"


@pytest.fixture(autouse=True, scope="module")
def quick_processes() -> Iterator[None]:
    """Processes that the command starts are forked from one whose imports are done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pcsr_lightning.cli.evaluate"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spawned, "spawn", partial(start_processes, start_method="forkserver"))
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``m2``, a model; ``set``: four pictures of several sizes, and a broken one among them."""
    root = tmp_path_factory.mktemp("files")
    save(small_pcsr(), root / "m2")
    sizes = {"a.png": (48, 80), "b.png": (96, 72), "sub/d.png": (40, 40), "sub/e.png": (64, 64)}
    write_textures(root / "set", sizes)
    (root / "set" / "c.png").write_bytes(b"\x89PNG\r\n")
    return root


@pytest.fixture
def words(files: Path) -> list[str]:
    return [f"model={files}/m2.safetensors", f"data.root={files}/set", "threads=1", "device=cpu"]


@pytest.fixture
def run(words: list[str], tmp_path: Path) -> Run:
    """The command in this process: what it and the processes it started wrote."""

    def call(*settings: str, code: int = 0) -> tuple[str, str]:
        return run_command("evaluate", *settings, *words, cwd=tmp_path, code=code)[1:]

    return call


def numbers(file: Path) -> Any:
    """All that a report says, but for seconds and who measured it."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            left_out = {"seconds", "processes"}
            return {key: without(x) for key, x in value.items() if key not in left_out}
        return [without(x) for x in value] if isinstance(value, list) else value

    return without(json.loads(file.read_text()))


def test_a_multirun_on_two_devices(run: Run, tmp_path: Path) -> None:
    """Benchmarks, the jobs of a multirun among them, with their pictures."""
    words = ("-m", "routing.k=0,0.1", "save_images=true")
    words += ("+metrics.mae._target_=torchmetrics.MeanAbsoluteError",)
    one, _ = run(*words, "hydra.sweep.dir=one")
    two, warned = run(*words, "hydra.sweep.dir=two", "devices=2")
    for n in ("0", "1"):
        expected = numbers(tmp_path / "one" / n / "metrics.json")
        assert numbers(tmp_path / "two" / n / "metrics.json") == expected
        assert [i["name"] for i in expected["images"]] == [
            *("a.png", "b.png", "sub/d.png", "sub/e.png")
        ]
        assert [s["name"] for s in expected["skipped"]] == ["c.png"]
        assert 0 < expected["metrics"]["mae"] < 1
        pictures = {
            p.relative_to(tmp_path / "one") for p in tmp_path.glob(f"one/{n}/pictures/**/*.png")
        }
        assert len(pictures) == 8
        for picture in pictures:
            same = (tmp_path / "one" / picture).read_bytes()
            assert (tmp_path / "two" / picture).read_bytes() == same
    facts = json.loads((tmp_path / "two" / "0" / "metrics.json").read_text())
    assert (facts["processes"], facts["threads"], facts["device"]) == (2, 1, "cpu")
    # Said once a job, by the command itself: in its log file too.
    assert warned.count("c.png is left out") == 2
    assert "c.png is left out" in (tmp_path / "two" / "1" / "evaluate.log").read_text()
    assert one.count("m2 (k = 0.1)") == two.count("m2 (k = 0.1)") == 1
    assert "two/table.csv" in two


@pytest.mark.slow
def test_a_sweep_on_two_devices(run: Run, tmp_path: Path) -> None:
    run("sweep=k", VALUES, "hydra.run.dir=one")
    out, _ = run("sweep=k", VALUES, "hydra.run.dir=two", "devices=2")
    assert numbers(tmp_path / "two" / "sweep.json") == numbers(tmp_path / "one" / "sweep.json")
    assert "4 pictures" in out
    assert (tmp_path / "two" / "psnr_flops.png").is_file()


def test_a_failure_of_one_is_one_line(run: Run, tmp_path: Path) -> None:
    """Only the process that enlarges ``sub/d.png`` cannot write it."""
    (tmp_path / "bad" / "pictures" / "sub" / "d.png").mkdir(parents=True)
    out, error = run("devices=2", "save_images=true", "hydra.run.dir=bad", code=1)
    lines = [line for line in error.splitlines() if not line.startswith("WARNING")]
    assert len(lines) == 1, error
    assert lines[0].startswith("error: ")
    assert "d.png" in lines[0]
    assert "PSNR" not in out
    assert not (tmp_path / "bad" / "metrics.json").exists()


SCRIPT = """
import os, pathlib, signal, sys, torch
from pcsr_lightning.errors import PCSRError
from pcsr_lightning.evaluation.spawned import run_in_processes

def work(processes, device):
    def stumble():
        if processes.rank == 1:
            raise ValueError("stumbled")
    try:
        processes.run_collectively(stumble)
    except (RuntimeError, ValueError) as error:
        pathlib.Path(f"{processes.rank}.txt").write_text(f"{type(error).__name__} {error}")
    if processes.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    processes.gather(None)

if __name__ == "__main__":
    try:
        run_in_processes([torch.device("cpu")] * 2, 1, work)
    except PCSRError as error:
        print(error)
"""


@pytest.mark.slow
def test_what_is_foreseen_by_nobody(tmp_path: Path) -> None:
    """An error that is no user's, and then a process that is killed: the others do not wait."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "1.txt").read_text() == "ValueError stumbled"
    told = (tmp_path / "0.txt").read_text()
    assert told.startswith("RuntimeError process 1 of 2 failed")
    assert 'raise ValueError("stumbled")' in told
    assert done.stdout.startswith("devices=2: process ")
    assert "want of memory" in done.stdout


def test_torchrun(words: list[str], run: Run, tmp_path: Path) -> None:
    """A multirun, of which every process composes every job."""
    settings = ("-m", "routing.k=0,0.1")
    run(*settings, "hydra.sweep.dir=one")
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "pcsr_lightning.evaluate", *settings, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [folder] = (tmp_path / "outputs" / "evaluate" / "sweeps").iterdir()
    for n in ("0", "1"):
        expected = numbers(tmp_path / "one" / n / "metrics.json")
        assert numbers(folder / n / "metrics.json") == expected
    assert json.loads((folder / "0" / "metrics.json").read_text())["processes"] == 2
    assert done.stdout.count("m2 (k = 0.1)") == 1
    assert done.stdout.count(f"{folder.name}/table.csv") == 1
    assert done.stderr.count("c.png is left out") == 2


@pytest.mark.slow
def test_slurm(words: list[str], run: Run, tmp_path: Path) -> None:
    """What srun says to its tasks, said here to two processes."""
    run("sweep=k", VALUES, "hydra.run.dir=one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    slurm = {
        "SLURM_JOB_ID": "123456", "SLURM_JOB_NAME": "evaluation", "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0",
        "SLURM_STEP_NODELIST": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "pcsr_lightning.evaluate", *words, "sweep=k", VALUES],
            cwd=tmp_path,
            env={**os.environ, **slurm, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [task.communicate(timeout=200) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    [report] = (tmp_path / "outputs").rglob("sweep.json")
    assert numbers(report) == numbers(tmp_path / "one" / "sweep.json")
    assert "k = 0.5" in said[0][0]
    assert said[1] == ("", "")


def test_shares_are_alike_and_complete(tmp_path: Path) -> None:
    paths = []
    for n, size in enumerate((5, 90, 30, 40, 20, 1)):
        paths.append(tmp_path / f"{n}")
        paths[-1].write_bytes(b"x" * size)
    shares = [ProcessGroup(rank, 2).share(paths) for rank in (0, 1)]
    assert shares == [paths[:2], paths[2:]]
    assert [p for rank in range(9) for p in ProcessGroup(rank, 9).share(paths[:2])] == paths[1::-1]


@pytest.mark.parametrize(
    ("settings", "group", "says"),
    [
        (["devices=0"], ProcessGroup(), "devices=0: must be at least 1"),
        (["devices=2", "target_psnr=26"], ProcessGroup(), "target_psnr=26: one process"),
        (["target_psnr=26"], ProcessGroup(0, 2, 0, 2), "target_psnr=26: one process"),
        (["devices=2"], ProcessGroup(0, 8, 0, 4), "devices=2: 4 processes were started"),
    ],
)
def test_what_is_refused(settings: list[str], group: ProcessGroup, says: str, files: Path) -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        register_routing()
        cfg = compose("evaluate", [f"data.root={files}/set", *settings])
    with pytest.raises(PCSRError, match=says):
        EvaluationConfig.of(cfg).check(group)

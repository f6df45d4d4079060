"""Two processes of one training, started by torchrun or by Lightning: one run, one writer."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.commands import SMALL_TRAINING

from pcsr_lightning.cli import run_folder
from pcsr_lightning.cli.run_folder import RUN_NAME, as_one_run
from pcsr_lightning.errors import ConfigError

SENDER = '''
import os
import lightning as L

class Send(L.Callback):
    """Sends the process of a rank a signal amid a step."""

    def __init__(self, number, rank, step):
        self.number, self.rank, self.step = number, rank, step

    def on_before_backward(self, trainer, pl_module, loss):
        if (trainer.global_rank, trainer.global_step) == (self.rank, self.step):
            os.kill(os.getpid(), self.number)
'''
WORDS = (
    *SMALL_TRAINING,
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "trainer.devices=2",
    "backbone.upsamplers=[[8,8],[8]]",
    "data.batch_size=4",
    "data.val_limit=2",
    "trainer.max_steps=12",
)
ALONE = [sys.executable, "-m"]
TORCHRUN = [*ALONE, "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    (folder / "sender.py").write_text(SENDER)
    return folder


def command(start: list[str], *settings: str) -> list[str]:
    return [*start, "pcsr_lightning.train", *WORDS, *settings]


def environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != RUN_NAME}
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def train(
    folder: Path, start: list[str], *settings: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(start, *settings), cwd=folder, env=environment(folder), text=True,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def sent(rank: int, step: int, number: int = signal.SIGTERM) -> list[str]:
    given = {"number": int(number), "rank": rank, "step": step}
    words = [f"+callbacks.send.{key}={value}" for key, value in given.items()]
    return ["+callbacks.send._target_=sender.Send", *words]


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """By torchrun, with a second process that comes later by more than a second."""
    (folder / "sitecustomize.py").write_text(
        "import os, time\ntime.sleep(1.5 * int(os.environ.get('RANK', 0)))\n"
    )
    done = train(folder, TORCHRUN)
    (folder / "sitecustomize.py").unlink()
    [run] = folder.glob("outputs/train/*/stage-1/*")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d+", run.name)
    said = done.stdout + done.stderr
    for line in ("what this stage trains", "trained 12 steps", "Data: 6 pictures"):
        assert said.count(line) == 1, line
    return run


def test_torchrun_makes_one_run(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {
        ".hydra", "checkpoints", "logs", "model.json", "model.safetensors", "pictures.json",
        "run.json", "train.log",
    }  # fmt: skip
    assert {p.name for p in (whole / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    overrides = (whole / ".hydra" / "overrides.yaml").read_text()
    assert "trainer.devices=2" in overrides
    hydra = (whole / ".hydra" / "hydra.yaml").read_text()
    assert "output_subdir: .hydra" in hydra  # written by the first process
    assert (whole / "train.log").read_text().count("trained 12 steps") == 1


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_the_same_step(whole: Path, folder: Path) -> None:
    """The second process alone gets it; resumed under torchrun, the run ends in the same weights"""
    done = train(folder, ALONE, "hydra.run.dir=term", *sent(rank=1, step=6), code=143)
    last = folder / "term" / "checkpoints" / "last.ckpt"
    assert done.stderr.count(f"stopped at step 7; to resume, add ckpt_path={last}") == 1
    assert "Traceback" not in done.stderr
    train(folder, TORCHRUN, "hydra.run.dir=term", f"ckpt_path={last}")
    name = "model.safetensors"
    assert (folder / "term" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_torchrun_and_to_all(number: int, whole: Path, folder: Path) -> None:
    """As a job scheduler, or a terminal, sends it: torchrun hands it on once more"""
    run = folder / f"signal-{int(number)}"
    words = [f"hydra.run.dir={run}", "trainer.max_steps=100000"]
    process = subprocess.Popen(
        command(TORCHRUN, *words, "callbacks.last.every_n_train_steps=5"), cwd=folder,
        env=environment(folder), text=True, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not (run / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert err.count("stopped at step") == 1, err
    assert process.returncode != 0


OUTSIDE = (
    "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "SLURM_JOB_ID", "SLURM_STEP_ID",
    "SLURM_PROCID", "SLURM_JOB_NAME", "SLURM_STEP_TASKS_PER_NODE", "SLURM_NODEID", "SLURM_LOCALID",
    "OMPI_COMM_WORLD_SIZE", "WORLD_SIZE", "RANK", RUN_NAME,
)  # fmt: skip


@pytest.fixture
def started():
    """The words as they come out in a process with such an environment, and the run's name."""

    def run(words: list[str], **env: str) -> tuple[list[str], str | None]:
        with pytest.MonkeyPatch.context() as patch:
            for key in OUTSIDE:
                patch.delenv(key, raising=False)
            for key, value in env.items():
                patch.setenv(key, value)
            try:
                return as_one_run(words), os.environ.get(RUN_NAME)
            finally:
                os.environ.pop(RUN_NAME, None)

    return run


def test_names_by_how_the_process_was_started(started) -> None:
    step = {
        "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "3", "SLURM_JOB_NAME": "train",
        "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0", "SLURM_LOCALID": "0",
    }  # fmt: skip
    assert started(["seed=1"]) == (["seed=1"], None)
    assert started(["seed=1"], WORLD_SIZE="1", RANK="0") == (["seed=1"], None)
    assert started(["seed=1"], **step, SLURM_PROCID="0") == (["seed=1"], "slurm-77-3")
    words, name = started(["seed=1"], **step, SLURM_PROCID="1")
    assert words[0] == "seed=1"
    assert "hydra.output_subdir=null" in words
    assert name == "slurm-77-3"
    # In a shell on a node, one command after the other would get the same name.
    shell = {**step, "SLURM_PROCID": "0"}
    assert started([], **{**shell, "SLURM_JOB_NAME": "bash"}) == ([], None)
    assert started([], **{**shell, "SLURM_STEP_ID": "4294967290"}) == ([], None)
    given = ["hydra.run.dir=x"]
    assert started(given, WORLD_SIZE="2", RANK="0") == (given, None)
    assert started([], WORLD_SIZE="2", RANK="0", **{RUN_NAME: "mine"}) == ([], "mine")


def test_processes_that_cannot_agree_are_told_what_to_set(
    started, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.run\.dir=FOLDER"):
        started([], WORLD_SIZE="2", RANK="0")
    monkeypatch.setattr(run_folder, "STORE_TIMEOUT_S", 1)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")  # nobody listens there
    torchrun = {
        "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True",
        "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1 does not answer.*hydra\.run\.dir="):
        started([], **torchrun)

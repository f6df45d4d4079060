"""SIGKILL at random moments; resumed each time, a training ends in the very same weights."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from pcsr_lightning.cli.train import main

WORDS = (
    "backbone=fsrcnn",
    "backbone.args={d:8,s:4,m:1}",
    "backbone.upsamplers=[[8,8],[8]]",
    "stage.queries=64",
    "data=sample",
    "data.lr_crop=8",
    "data.batch_size=2",
    "data.shrinks=[1.0]",
    "data.val_limit=1",
    "threads=1",
    "trainer.accelerator=cpu",
    "trainer.val_check_interval=25",
    "callbacks.progress=null",
    "callbacks.last.every_n_train_steps=3",
    "logger=none",
)
LAST = Path("checkpoints", "last.ckpt")
MODEL = "model.safetensors"
# Has imported everything, and trains in a fork of itself for each line that it reads.
ZYGOTE = """
import json, os, sys
from pcsr_lightning.cli.train import main

out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.argv = ["train.py", *json.loads(line)]
        try:
            main()
        finally:
            os._exit(0)
    print(child, file=out, flush=True)
    print(os.waitpid(child, 0)[1], file=out, flush=True)
"""


def words(run: Path, steps: int) -> list[str]:
    resume = [f"ckpt_path={run / LAST}"] if (run / LAST).exists() else []
    return [*WORDS, f"trainer.max_steps={steps}", f"hydra.run.dir={run}", *resume]


def train_here(run: Path, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the end, without a new process."""
    monkeypatch.setattr(sys, "argv", ["train.py", *words(run, steps)])
    main()


def halves(run: Path) -> list[Path]:
    return list(run.rglob(".*.tmp"))


def saved(run: Path) -> int:
    """Changes with every checkpoint."""
    return (run / LAST).stat().st_mtime_ns if (run / LAST).exists() else 0


class Starter:
    """Starts trainings in processes of their own, most without the seconds of importing again."""

    def __init__(self, log: Path) -> None:
        self.log = log.open("ab")
        self.zygote = subprocess.Popen(
            [sys.executable, "-c", ZYGOTE], stdin=PIPE, stdout=PIPE, stderr=self.log, text=True
        )

    def start(self, given: list[str], fresh: bool) -> int:
        """The process's id."""
        if fresh:
            command = [sys.executable, "-m", "pcsr_lightning.train", *given]
            self.fresh = subprocess.Popen(command, stdout=self.log, stderr=self.log)
            return self.fresh.pid
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        print(json.dumps(given), file=self.zygote.stdin, flush=True)
        return int(self.zygote.stdout.readline())

    def end(self, fresh: bool) -> int:
        """How the process has ended: its exit code, or the signal below 0."""
        if fresh:
            return self.fresh.wait()
        assert self.zygote.stdout is not None
        return os.waitstatus_to_exitcode(int(self.zygote.stdout.readline()))

    def close(self) -> None:
        self.zygote.communicate("")
        self.log.close()


def train_and_kill(
    starter: Starter, run: Path, steps: int, moment: str, draw: random.Random
) -> bool:
    """Starts or resumes the training and kills it; false where it was too late for that.

    Args:
        moment: ``anywhere``, from the start of the process on; ``training``, within a few
            checkpoints after the first; ``writing``, when a half-written checkpoint is seen.
    """
    before, left, fresh = saved(run), set(halves(run)), moment == "anywhere"
    pid = starter.start(words(run, steps), fresh)
    end = time.monotonic() + 300
    if fresh:
        time.sleep(draw.uniform(0, 6))
    while not fresh and saved(run) == before:
        assert time.monotonic() < end
        time.sleep(0.005)
    if moment == "training":
        time.sleep(draw.uniform(0, 0.3))
    soon = time.monotonic() + 5
    while moment == "writing" and set(halves(run)) <= left and time.monotonic() < soon:
        pass
    os.kill(pid, signal.SIGKILL)
    code = starter.end(fresh)
    said = Path(starter.log.name).read_text()
    assert code in (-signal.SIGKILL, 0 if fresh else None), f"ended with {code}: {said[-2000:]}"
    return code != 0


def kill_again_and_again(run: Path, steps: int, moments: list[str], seed: int) -> None:
    """Prints what it did, for ``pytest -s``."""
    print(f"seed {seed}")
    draw, amid_writing, progressed = random.Random(seed), 0, 0
    starter = Starter(run.parent / f"{run.name}.txt")
    for moment in moments:
        before, left = saved(run), set(halves(run))
        if not train_and_kill(starter, run, steps, moment, draw):
            break  # a quick machine has finished: there is nothing left to kill
        progressed += saved(run) != before
        amid_writing += bool(set(halves(run)) - left)
        print(f"{moment}: {'checkpoint' if saved(run) != before else 'nothing'} saved, then killed")
    starter.close()
    print(f"{len(moments)} kills, {progressed} after a checkpoint, {amid_writing} amid writing one")
    assert progressed >= len(moments) - moments.count("anywhere")


@pytest.fixture
def seed() -> int:
    """Another one each time; PCSR_KILL_SEED repeats a failure."""
    return int(os.environ.get("PCSR_KILL_SEED", random.SystemRandom().randrange(2**31)))


def test_three_kills(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train_here(tmp_path / "whole", 150, monkeypatch)
    moments = ["training", "writing", "anywhere"]
    kill_again_and_again(tmp_path / "killed", 150, moments, seed)
    train_here(tmp_path / "killed", 150, monkeypatch)
    assert not halves(tmp_path / "killed")
    assert (tmp_path / "killed" / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train_here(tmp_path / "whole", 1500, monkeypatch)
    draw = random.Random(seed)
    moments = draw.sample(["training"] * 10 + ["writing"] * 5 + ["anywhere"] * 5, 20)
    kill_again_and_again(tmp_path / "killed", 1500, moments, seed)
    train_here(tmp_path / "killed", 1500, monkeypatch)
    assert not halves(tmp_path / "killed")
    assert (tmp_path / "killed" / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()


def test_a_cut_checkpoint_is_refused_and_another_stage_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    train_here(tmp_path / "run", 2, monkeypatch)
    last = tmp_path / "run" / LAST
    whole = last.read_bytes()

    def refused(*more: str) -> str:
        known = words(tmp_path / "run", 4)
        if "stage=original" in more:  # it draws no queries
            known = [word for word in known if "queries" not in word]
        monkeypatch.setattr(sys, "argv", ["train.py", *known, *more])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 1
        errors = [line for line in capfd.readouterr().err.splitlines() if "error:" in line]
        assert len(errors) == 1
        return errors[0]

    error = refused("num_classes=3", "backbone.upsamplers=[[8,8],[8],[8]]")
    assert "num_classes=2" in error
    assert "num_classes=3" in error
    error = refused("stage=original")
    assert "stage=1" in error
    assert "stage=original" in error
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        last.write_bytes(whole[:length])
        assert str(last) in refused()

"""SIGKILL at random moments; resumed each time, a training ends in the very same weights."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from tests.commands import SMALL_TRAINING, run_command, start

WORDS = (
    *SMALL_TRAINING,
    "backbone.upsamplers=[[8,8],[8]]",
    "trainer.val_check_interval=25",
    "callbacks.last.every_n_train_steps=3",
    "logger=none",
)
LAST = Path("checkpoints", "last.ckpt")
MODEL = "model.safetensors"


def words(run: Path, steps: int) -> list[str]:
    resume = [f"ckpt_path={run / LAST}"] if (run / LAST).exists() else []
    return [*WORDS, f"trainer.max_steps={steps}", f"hydra.run.dir={run}", *resume]


def train_here(run: Path, steps: int) -> None:
    """To the end, without a new process."""
    run_command("train", *words(run, steps), code=0)


def halves(run: Path) -> list[Path]:
    return list(run.rglob(".*.tmp"))


def saved(run: Path) -> int:
    """Changes with every checkpoint."""
    return (run / LAST).stat().st_mtime_ns if (run / LAST).exists() else 0


def train_and_kill(run: Path, steps: int, moment: str, draw: random.Random) -> bool:
    """Starts or resumes the training and kills it; false where it was too late for that.

    Args:
        moment: ``anywhere``, from the start of the process on; ``training``, within a few
            checkpoints after the first; ``writing``, when a half-written checkpoint is seen.
    """
    before, left, anywhere = saved(run), set(halves(run)), moment == "anywhere"
    said = run.with_suffix(".txt")
    with said.open("ab") as log:
        process = start("pcsr_lightning.train", *words(run, steps), stdout=log, stderr=log)
    end = time.monotonic() + 300
    if anywhere:
        time.sleep(draw.uniform(0, 6))
    while not anywhere and saved(run) == before:
        assert time.monotonic() < end
        time.sleep(0.005)
    if moment == "training":
        time.sleep(draw.uniform(0, 0.3))
    soon = time.monotonic() + 5
    while moment == "writing" and set(halves(run)) <= left and time.monotonic() < soon:
        pass
    process.kill()
    code = process.wait()
    possible = (-signal.SIGKILL, 0 if anywhere else None)
    assert code in possible, f"ended with {code}: {said.read_text()[-2000:]}"
    return code != 0


def kill_again_and_again(run: Path, steps: int, moments: list[str], seed: int) -> None:
    """Prints what it did, for ``pytest -s``."""
    print(f"seed {seed}")
    draw, amid_writing, progressed = random.Random(seed), 0, 0
    for moment in moments:
        before, left = saved(run), set(halves(run))
        if not train_and_kill(run, steps, moment, draw):
            break  # a quick machine has finished: there is nothing left to kill
        progressed += saved(run) != before
        amid_writing += bool(set(halves(run)) - left)
        print(f"{moment}: {'checkpoint' if saved(run) != before else 'nothing'} saved, then killed")
    print(f"{len(moments)} kills, {progressed} after a checkpoint, {amid_writing} amid writing one")
    assert progressed >= len(moments) - moments.count("anywhere")


@pytest.fixture
def seed() -> int:
    """Another one each time; PCSR_KILL_SEED repeats a failure."""
    return int(os.environ.get("PCSR_KILL_SEED", random.SystemRandom().randrange(2**31)))


def test_two_kills(tmp_path: Path, seed: int) -> None:
    train_here(tmp_path / "whole", 100)
    kill_again_and_again(tmp_path / "killed", 100, ["training", "writing"], seed)
    train_here(tmp_path / "killed", 100)
    assert not halves(tmp_path / "killed")
    assert (tmp_path / "killed" / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path, seed: int) -> None:
    train_here(tmp_path / "whole", 1500)
    draw = random.Random(seed)
    moments = draw.sample(["training"] * 10 + ["writing"] * 5 + ["anywhere"] * 5, 20)
    kill_again_and_again(tmp_path / "killed", 1000, moments, seed)
    train_here(tmp_path / "killed", 1000)
    assert not halves(tmp_path / "killed")
    assert (tmp_path / "killed" / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()


def test_a_cut_checkpoint_is_refused_and_another_stage_too(tmp_path: Path) -> None:
    train_here(tmp_path / "run", 2)
    last = tmp_path / "run" / LAST
    whole = last.read_bytes()

    def refused(*more: str) -> str:
        known = words(tmp_path / "run", 4)
        if "stage=original" in more:  # it draws no queries
            known = [word for word in known if "queries" not in word]
        done = run_command("train", *known, *more, code=1)
        [error] = [line for line in done.err.splitlines() if "error:" in line]
        return error

    error = refused("num_classes=3", "backbone.upsamplers=[[8,8],[8],[8]]")
    assert "num_classes=2" in error
    assert "num_classes=3" in error
    error = refused("stage=original")
    assert "stage=1" in error
    assert "stage=original" in error
    for length in (0, len(whole) // 2, len(whole) - 1):
        last.write_bytes(whole[:length])
        assert str(last) in refused()

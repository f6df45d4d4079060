"""Signals end a training between two steps; resumed, it goes on as if nothing had happened."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from tests.commands import SMALL_TRAINING

from pcsr_lightning.atomic_io import remove_all_stale_temporaries
from pcsr_lightning.cli.train import main
from pcsr_lightning.training.callbacks.stopping import StopBetweenSteps, checkpoint_of_restart

SENDER = '''
import os
import lightning as L

class Send(L.Callback):
    """Sends this process a signal when a hook comes at a step."""

    def __init__(self, number, hook, step, batch=0):
        self.number, self.step, self.batch = number, step, batch
        setattr(self, hook, self.send)

    def send(self, trainer, pl_module, *rest):
        batch = next(n for n in rest if isinstance(n, int)) if trainer.validating else self.batch
        if trainer.global_step == self.step and batch == self.batch:
            os.kill(os.getpid(), self.number)
'''
WORDS = (
    *SMALL_TRAINING,
    "backbone.upsamplers=[[8,8],[8]]",
    "data.val_limit=2",
    "trainer.max_steps=20",
    "trainer.val_check_interval=10",
    "trainer.log_every_n_steps=1",
    "callbacks.last.every_n_train_steps=1000",
)

Run = Callable[..., int]


def sent(hook: str, step: int, number: int = signal.SIGTERM, **more: int) -> list[str]:
    given = {"number": int(number), "hook": hook, "step": step, **more}
    return [
        "+callbacks.send._target_=sender.Send",
        *(f"+callbacks.send.{key}={value}" for key, value in given.items()),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopping")
    (folder / "sender.py").write_text(SENDER)
    return folder


def train_here(folder: Path, monkeypatch: pytest.MonkeyPatch, words: Sequence[str]) -> Run:
    """The whole command without a new process: returns the exit code."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))

    def run(run_dir: str, *settings: str) -> int:
        arguments = [*words, f"hydra.run.dir={run_dir}", *settings]
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


@pytest.fixture
def train(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return train_here(folder, monkeypatch, WORDS)


@pytest.fixture
def whole(train: Run, folder: Path) -> Path:
    if not (folder / "whole").exists():
        assert train("whole") == 0
    return folder / "whole"


def logged(run: Path, *keys: str) -> list[tuple[str, ...]]:
    """Rows of the logs that have all of the keys, in order."""
    found = []
    for path in sorted(run.glob("logs*/metrics.csv"), key=lambda path: path.stat().st_mtime_ns):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        found += [tuple(row[k] for k in keys) for row in rows if all(row.get(k) for k in keys)]
    return found


def validations(run: Path) -> list[tuple[str, ...]]:
    """Step and PSNR of every validation in the order of the logs."""
    return logged(run, "step", "val/psnr")


def resumed(train: Run, run: Path) -> None:
    assert train(run.name, f"ckpt_path={run}/checkpoints/last.ckpt") == 0


def same(run: Path, whole: Path) -> bool:
    name = "model.safetensors"
    return (run / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "hook", "step", "stops_at", "validated"),
    [
        ("in-step", "on_before_backward", 6, 7, 0),
        ("before-validation", "on_before_backward", 9, 10, 0),
        ("amid-validation", "on_validation_batch_start", 10, 10, 0),
        ("between-pictures", "on_validation_batch_end", 10, 10, 0),
        ("last-step", "on_before_backward", 19, 20, 1),
        ("last-validation", "on_validation_batch_start", 20, 20, 1),
    ],
)
def test_sigterm_saves_and_nothing_is_lost(
    name: str,
    hook: str,
    step: int,
    stops_at: int,
    validated: int,
    train: Run,
    whole: Path,
    folder: Path,
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert train(name, *sent(hook, step)) == 143
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    run = folder / name
    checkpoint = run / "checkpoints" / "last.ckpt"
    log = (run / "train.log").read_text()
    [line] = [line for line in log.splitlines() if "ckpt_path=" in line]
    assert line.endswith(f"stopped at step {stops_at}; to resume, add ckpt_path={checkpoint}")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == stops_at
    assert not (run / "run.json").exists()
    assert len(validations(run)) == validated
    resumed(train, run)
    assert same(run, whole)
    # Each validation was done once, as a whole, and is told of the right step.
    assert validations(run) == validations(whole)
    steps = [
        torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["global_step"]
        for folder in (run, whole)
    ]
    assert steps[0] == steps[1]


@pytest.mark.slow  # tests/cli/test_train.py has one in the default run
def test_a_signal_to_a_real_process(train: Run, whole: Path, folder: Path) -> None:
    command = [
        sys.executable, "-m", "pcsr_lightning.train", *WORDS, "hydra.run.dir=process",
        *sent("on_train_batch_start", 4),
    ]  # fmt: skip
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, text=True, timeout=300,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 143, done.stderr
    assert re.search(r"stopped at step 5; to resume, add ckpt_path=", done.stderr)
    assert "Traceback" not in done.stderr
    resumed(train, folder / "process")
    assert same(folder / "process", whole)


def test_before_training_a_signal_ends_the_process_at_once(folder: Path) -> None:
    command = [sys.executable, "-m", "pcsr_lightning.train", *WORDS, "hydra.run.dir=early"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as process:
        time.sleep(1)  # amid the imports
        process.terminate()
        began = time.monotonic()
        assert process.wait(60) == -signal.SIGTERM
    assert time.monotonic() - began < 10
    assert not (folder / "early" / "checkpoints").exists()


def test_ctrl_c_ends_with_130(train: Run, whole: Path, folder: Path) -> None:
    assert train("ctrl-c", *sent("on_before_backward", 6, signal.SIGINT)) == 130
    resumed(train, folder / "ctrl-c")
    assert same(folder / "ctrl-c", whole)


def test_the_same_signal_again_is_abrupt_but_not_its_echo(tmp_path: Path) -> None:
    stop, before = StopBetweenSteps(tmp_path / "x.ckpt"), signal.getsignal(signal.SIGINT)
    try:
        stop._ask(signal.SIGINT, None)
        stop._ask(signal.SIGINT, None)  # the terminal's, and torchrun's
        stop._ask(signal.SIGTERM, None)
        stop._first[signal.SIGINT] -= 3
        with pytest.raises(KeyboardInterrupt):
            stop._ask(signal.SIGINT, None)
    finally:
        signal.signal(signal.SIGINT, before)


def test_gradients_being_accumulated_are_not_dropped(train: Run, folder: Path) -> None:
    more = ("+trainer.accumulate_grad_batches=3", "trainer.max_steps=6")
    assert train("three", *more) == 0
    # Amid the first of the three batches of step 4.
    assert train("three-stopped", *more, *sent("on_before_backward", 3)) == 143
    run = folder / "three-stopped"
    assert "stopped at step 4;" in (run / "train.log").read_text()
    assert train(run.name, *more, f"ckpt_path={run}/checkpoints/last.ckpt") == 0
    assert same(run, folder / "three")


def test_a_restarted_process_finds_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    for count, written, expected in [
        (None, True, None),
        ("0", True, None),
        ("", True, None),
        ("2", False, None),
        ("2", True, str(last)),
    ]:
        last.unlink(missing_ok=True)
        if written:
            last.write_bytes(b"")
        for key in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"):
            monkeypatch.delenv(key, raising=False)
        if count is not None:
            monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        assert checkpoint_of_restart(tmp_path) == expected


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    left = [".last.ckpt.123.tmp", ".model.safetensors.4.tmp"]
    kept = ["last.ckpt", ".lock", ".notes.tmp", "a.5.tmp"]
    for name in left + kept:
        (tmp_path / name).write_bytes(b"x")
    # and what a writer that ends amid its work really leaves
    ended = "import os\nwith atomic_writer(path):\n    os._exit(0)\n"
    begun = "from pathlib import Path\nfrom pcsr_lightning.atomic_io import atomic_writer\n"
    code = f"{begun}path = Path({str(tmp_path / 'best.ckpt')!r})\n{ended}"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(list(tmp_path.glob(".best.ckpt.*.tmp"))) == 1
    remove_all_stale_temporaries(tmp_path)
    remove_all_stale_temporaries(tmp_path / "missing")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)

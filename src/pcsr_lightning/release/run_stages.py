"""Runs the stages of a recipe, each in a process of its own, and goes on after any interruption."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pcsr_lightning.atomic_io import lock_file
from pcsr_lightning.errors import INTERRUPTED, TrainingError
from pcsr_lightning.release.recipe import Recipe, Stage
from pcsr_lightning.weights import LAST, is_finished, read_checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageRun:
    """A finished stage: its words as given to the training command, and its run folder."""

    stage: Stage
    words: tuple[str, ...]
    folder: Path


def run_stages(recipe: Recipe, words: Sequence[str], output: Path) -> list[StageRun]:
    """Trains what is not trained yet, in order.

    A finished stage is left as it is; one with a checkpoint goes on from there, with the very
    weights that it would have had without the interruption; another recipe's stage that this one
    starts from is trained first.

    Args:
        recipe: what to train.
        words: more words of the training command for every stage (where the data is, ...).
        output: every model gets a folder below, with a folder for each stage inside.

    Returns:
        The stages in order, those of other recipes first.

    Raises:
        ConfigError: another recipe cannot be used.
        TrainingError: a stage ended without a result; what it said stands above.
    """
    done: list[StageRun] = []
    if recipe.after is not None:
        earlier = Recipe.read(recipe.after.recipe).until(recipe.after.stage)
        done = run_stages(earlier, words, output)
    for stage in recipe.stages:
        folder = output / recipe.name / f"stage-{stage.label}"
        init = (f"init={done[-1].folder}",) if done else ()
        done.append(StageRun(stage, (*stage.words, *init, *words), folder))
        if not is_finished(folder):
            _train(done[-1], recipe.name)
    return done


def _train(run: StageRun, model: str) -> None:
    more = [f"hydra.run.dir={run.folder}"]
    last = run.folder / LAST
    if last.is_file():
        read_checkpoint(last)  # says so now if it is damaged
        more.append(f"ckpt_path={last}")
    log.info(
        "%s, stage %s: %s in %s",
        model, run.stage.label, "goes on" if last.is_file() else "starts", run.folder,
    )  # fmt: skip
    with locked(run.folder) as lock:
        code = _run([sys.executable, "-m", "pcsr_lightning.train", *run.words, *more], lock)
    if code in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    if code != 0 or not is_finished(run.folder):
        raise TrainingError(
            f"{model}, stage {run.stage.label}: the training ended with exit code {code}, see "
            "above; the same command goes on from the last checkpoint"
        )


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Holds a folder for this process and those that inherit the descriptor given.

    A training outlives the command that started it if only the latter is killed; a second one in
    the same folder would mix its checkpoints with the first one's.

    Raises:
        TrainingError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        if not lock_file(file.fileno()):
            raise TrainingError(
                f"{folder}: another process is training here; wait for it, or stop it first"
            )
        yield file.fileno()


def _run(command: list[str], lock: int) -> int:
    """The exit code of a training that inherits the lock.

    Ctrl-C reaches both processes, and the training saves first; so it is waited for. A SIGTERM to
    this process alone is handed on.
    """
    # Standard output is for what this command has to say: the files it wrote.
    process = subprocess.Popen(command, pass_fds=(lock,), stdout=sys.stderr)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
    finally:
        signal.signal(signal.SIGTERM, before)

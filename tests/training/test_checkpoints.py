"""A checkpoint is the old one or the new one, never half of one."""

import itertools
import multiprocessing
import random
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from pcsr_lightning.training.callbacks.checkpoints import AtomicCheckpoints

FORK = multiprocessing.get_context("fork")  # spares the imports


def save_forever(path: Path, told: Connection) -> None:
    for n in itertools.count(1):
        values = torch.full((3_000_000,), float(n))
        AtomicCheckpoints().save_checkpoint({"n": n, "values": values}, path)
        told.send(n)


def test_killed_amid_saving(tmp_path: Path) -> None:
    path, draw = tmp_path / "checkpoints" / "last.ckpt", random.Random(1)
    halves = 0
    for kill in range(20):
        told, tell = FORK.Pipe(duplex=False)
        process = FORK.Process(target=save_forever, args=(path, tell))
        process.start()
        tell.close()
        said = told.recv()
        time.sleep(draw.uniform(0, 0.15))
        process.kill()
        with suppress(EOFError):
            while True:
                said = told.recv()
        process.join()
        found = torch.load(path, weights_only=True)
        assert found["n"] >= said
        assert (found["values"] == found["n"]).all()
        halves += len(list(path.parent.iterdir())) - 1
        if kill >= 3 and halves:
            break
    assert halves > 0  # or no kill has come amid a write, and nothing was tested
    AtomicCheckpoints().save_checkpoint({"n": 0}, path)
    assert list(path.parent.iterdir()) == [path]

"""A checkpoint is the old one or the new one, never half of one."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import torch
from tests.warm_python import warm_python

from pcsr_lightning.training.callbacks.checkpoints import AtomicCheckpoints

SAVE_FOREVER = """
import sys, torch
from pcsr_lightning.training.callbacks.checkpoints import AtomicCheckpoints
io, n = AtomicCheckpoints(), 0
while True:
    n += 1
    io.save_checkpoint({"n": n, "values": torch.full((3_000_000,), float(n))}, sys.argv[1])
    print(n, flush=True)
"""


def test_killed_amid_saving(tmp_path: Path) -> None:
    path, draw = tmp_path / "checkpoints" / "last.ckpt", random.Random(1)
    halves = 0
    for kill in range(20):
        process = subprocess.Popen(
            [warm_python(), "-c", SAVE_FOREVER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        said = int(process.stdout.readline())
        time.sleep(draw.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        said = max([said, *(int(line) for line in process.stdout.read().split())])
        process.wait()
        found = torch.load(path, weights_only=True)
        assert found["n"] >= said
        assert (found["values"] == found["n"]).all()
        halves += len(list(path.parent.iterdir())) - 1
        if kill >= 3 and halves:
            break
    assert halves > 0  # or no kill has come amid a write, and nothing was tested
    AtomicCheckpoints().save_checkpoint({"n": 0}, path)
    assert list(path.parent.iterdir()) == [path]

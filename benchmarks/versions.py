"""Upscaling by two versions of the library, in turns: what a change has gained.

    git worktree add ../before COMMIT
    python benchmarks/versions.py ../before .
    python benchmarks/versions.py ../before . --models carn-pcsr-x4 --sizes 960x540 --cpu-time

Every model, size and precision has a process in each checkout, with the settings of the library's
commands. The processes take turns, picture by picture, so that both meet the same load. ``k = 0``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from _inputs import find_photograph, shared_folder
from _measure import (
    interleaved,
    machine_facts,
    markdown,
    matrix_products,
    matrix_rate,
    positive,
    say,
)
from torch import Tensor

from pcsr_lightning.errors import ConfigError, PCSRError
from pcsr_lightning.inference.execution import has_bf16

_WORKER = """
import sys, time
from pcsr_lightning.cli import startup
for name in ("set_wait_policy", "tune_process"):  # its older name first
    getattr(startup, name, lambda: None)()
import torch, pcsr_lightning
name, precision, threads, clock, picture = sys.argv[1:]
torch.set_num_threads(int(threads))
model, lr_13hw = pcsr_lightning.load(name), torch.load(picture)
for line in sys.stdin:
    start = getattr(time, clock)()
    result = pcsr_lightning.upscale(model, lr_13hw, 4, precision=precision)
    seconds = getattr(time, clock)() - start
    print(seconds, result.flops.gmacs, flush=True)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns its exit code."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("checkouts", nargs=2, type=Path, metavar="CHECKOUT", help="before, after")
    p.add_argument("--models", nargs="+", default=["carn-pcsr-x4", "carn-x4", "fsrcnn-pcsr-x4"])
    p.add_argument("--sizes", nargs="+", default=["420x276", "960x540"], metavar="WxH", help="LR")
    p.add_argument("--repeats", type=positive, default=5, help="rounds")
    p.add_argument("--threads", type=positive, default=torch.get_num_threads())
    p.add_argument("--cpu-time", action="store_true", help="CPU seconds of the process")
    args = p.parse_args(argv)
    torch.set_num_threads(args.threads)
    clock = "process_time" if args.cpu_time else "perf_counter"
    rows = []
    try:
        for size in args.sizes:
            width, height = map(int, size.split("x"))
            lr_13hw, _ = find_photograph(shared_folder()).pair((height, width))
            for name in args.models:
                for precision in ["fp32", "bf16"] if has_bf16("cpu") else ["fp32"]:
                    words = [name, precision, str(args.threads), clock]
                    rows.append([name, size, precision, *_compare(args, words, lr_13hw)])
                    say(" | ".join(rows[-1]))
        products = interleaved({"": matrix_products("fp32")}, 5, clock=getattr(time, clock))[""]
    except PCSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rate = 2 * matrix_rate(products)
    print(f"{json.dumps(machine_facts(args.threads))}; fp32 matrix products {rate:.0f} GFLOP/s\n")
    header = ["model", "LR", "precision", "before: s", "after: s", "after / before"]
    print(markdown([*header, "after: GFLOP/s"], rows))
    return 0


def _compare(args: argparse.Namespace, words: list[str], lr_13hw: Tensor) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "lr.pt"
        torch.save(lr_13hw, picture)
        with (
            _worker(args.checkouts[0], [*words, str(picture)]) as before,
            _worker(args.checkouts[1], [*words, str(picture)]) as after,
        ):
            taken = [[_next(worker) for worker in (before, after)] for _ in range(args.repeats + 1)]
    # The first picture prepares the rest.
    old, new = (statistics.median(s[0] for s in column) for column in zip(*taken[1:], strict=True))
    gflops = 2 * taken[-1][1][1]
    return [f"{old:.3f}", f"{new:.3f}", f"{new / old:.2f}", f"{gflops / new:.0f}"]


@contextmanager
def _worker(checkout: Path, words: list[str]) -> Iterator[subprocess.Popen[str]]:
    source = checkout.resolve() / "src"
    if not source.is_dir():
        raise ConfigError(f"{checkout}: not a checkout of the library, which has a folder src")
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, *words],
        env={**os.environ, "PYTHONPATH": str(source)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield worker
    finally:
        worker.communicate()


def _next(worker: subprocess.Popen[str]) -> tuple[float, float]:
    """The seconds of a picture, and its multiply-adds in thousands of millions."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        print("next", file=worker.stdin, flush=True)
        seconds, gmacs = map(float, worker.stdout.readline().split())
    except (BrokenPipeError, ValueError):
        raise ConfigError("one of the two versions failed, see above") from None
    return seconds, gmacs


if __name__ == "__main__":
    sys.exit(main())

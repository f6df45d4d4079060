"""Upscaling with glibc's own way of keeping freed memory, and with that of our commands.

    python benchmarks/memory_policy.py                    # CARN-PCSR, fp32 and bf16
    python benchmarks/memory_policy.py --model fsrcnn-pcsr-x4 --repeats 15
    python benchmarks/memory_policy.py --apart            # called in a thread of Python's own

Two processes take turns, so that both meet the same load. Seconds are CPU seconds of the process,
which leave out what other work takes; page faults are those of one picture.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from itertools import chain

import torch
from _inputs import SCALE, find_photograph, load_pcsr, shared_folder
from _measure import markdown, positive

import pcsr_lightning
from pcsr_lightning.cli.startup import MEMORY_POLICY, MEMORY_SETTINGS
from pcsr_lightning.inference.execution import has_bf16

LR_SIZE = (276, 420)
POLICIES = {
    "glibc's": {},
    "commands'": {name: str(size) for name, size in MEMORY_POLICY.items()},
}


def work(model_name: str, precision: str, apart: bool) -> None:
    """Upscales a picture for every line of standard input, and prints what it took."""
    model = load_pcsr(model_name)
    lr_13hw, _ = find_photograph(shared_folder()).pair(LR_SIZE)

    def upscale() -> None:
        pcsr_lightning.upscale(model, lr_13hw, SCALE, precision=precision)

    for line in chain(["first"], sys.stdin):
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
        if apart:
            thread = threading.Thread(target=upscale)
            thread.start()
            thread.join()
        else:
            upscale()
        seconds = time.process_time() - start
        after = resource.getrusage(resource.RUSAGE_SELF)
        if line != "first":
            found = seconds, after.ru_minflt - before.ru_minflt, after.ru_maxrss / 1024
            print(json.dumps(found), flush=True)


def compare(args: argparse.Namespace, precision: str) -> list[list[str]]:
    """A row for each policy."""
    unset = {k: v for k, v in os.environ.items() if k not in MEMORY_SETTINGS}
    words = ["--worker", precision, "--model", args.model, "--threads", str(args.threads)]
    words += ["--apart"] if args.apart else []
    workers = {
        name: subprocess.Popen(
            [sys.executable, __file__, *words],
            env={**unset, **policy},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, policy in POLICIES.items()
    }
    found: dict[str, list[list[float]]] = {name: [] for name in workers}
    for _ in range(args.repeats):
        for name, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            print("next", file=worker.stdin, flush=True)
            found[name].append(json.loads(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate()
    rows = []
    for name, taken in found.items():
        seconds, faults, peak = (statistics.median(column) for column in zip(*taken, strict=True))
        rows.append([precision, name, f"{seconds:.3f}", f"{faults:.0f}", f"{peak:.0f}"])
    return rows


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(prog="python benchmarks/memory_policy.py")
    p.add_argument("--model", default="carn-pcsr-x4")
    p.add_argument("--repeats", type=positive, default=9, help="rounds (default: %(default)s)")
    p.add_argument("--threads", type=positive, default=1, help="default: %(default)s")
    p.add_argument("--apart", action="store_true", help="call it in a thread of Python's own")
    p.add_argument("--worker", help=argparse.SUPPRESS)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    if args.worker is not None:
        work(args.model, args.worker, args.apart)
        return
    precisions = ["fp32", "bf16"] if has_bf16("cpu") else ["fp32"]
    rows = [row for precision in precisions for row in compare(args, precision)]
    header = ["precision", "malloc", "CPU seconds", "page faults", "peak MiB"]
    print(f"{args.model}, LR {LR_SIZE[0]} x {LR_SIZE[1]}, {args.threads} threads\n")
    print(markdown(header, rows))


if __name__ == "__main__":
    main()

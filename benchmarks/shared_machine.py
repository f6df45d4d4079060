"""Upscaling beside other work: how OpenMP's threads should wait for each other.

    python benchmarks/shared_machine.py                  # the table: minutes on two idle cores
    python benchmarks/shared_machine.py --policy passive --repeats 5

Every cell is the time that `python -m pcsr_lightning.upscale` takes for one picture, imports left
out, in a process of its own: alone, beside one busy process, beside one for every core, and beside
another upscaling. The settings take turns, so that all of them meet the same weather.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from _measure import machine_facts, markdown, positive, say

from pcsr_lightning.cli.startup import WAIT_SETTINGS
from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import PCSRError
from pcsr_lightning.images import Picture, read, write

POLICIES: dict[str, dict[str, str]] = {
    # LLVM's default said aloud, or the command would set its own; GNU's runtime does not read it.
    "the runtime's own": {"KMP_BLOCKTIME": "200"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin 1,000": {"GOMP_SPINCOUNT": "1000"},
    "spin 10,000": {"GOMP_SPINCOUNT": "10000"},
    "spin 100,000": {"GOMP_SPINCOUNT": "100000"},
    "active": {"OMP_WAIT_POLICY": "ACTIVE"},
}
SITUATIONS = ("alone", "one busy process", "every core busy", "two runs")
BUSY = "import time\nend = time.time() + 600\nwhile time.time() < end:\n    sum(range(100_000))"
WIDTH, HEIGHT = 300, 200


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Processes that use a core each."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def start(source: Path, target: Path, policy: str, threads: int) -> subprocess.Popen[str]:
    """An upscaling of a folder, with a setting instead of the command's own."""
    unset = {k: v for k, v in os.environ.items() if k not in (*WAIT_SETTINGS, "OMP_NUM_THREADS")}
    environment = unset | POLICIES[policy]
    words = ["--json", "--threads", str(threads), "--overwrite"]
    command = [sys.executable, "-m", "pcsr_lightning.upscale", str(source), str(target), *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def seconds(situation: str, policy: str, threads: int, folder: Path) -> float:
    """The time for a picture, the mean over those of a run, and over the runs at once.

    Raises:
        PCSRError: a run failed.
    """
    busy = {"one busy process": 1, "every core busy": os.cpu_count() or 1}.get(situation, 0)
    runs = 2 if situation == "two runs" else 1
    with neighbours(busy):
        started = [start(folder / "in", folder / f"out{n}", policy, threads) for n in range(runs)]
        told = [process.communicate() for process in started]
    taken = []
    for process, (out, err) in zip(started, told, strict=True):
        if process.returncode:
            raise PCSRError(f"an upscaling failed: {err}")
        lines = [json.loads(line) for line in out.splitlines()]
        taken += [line["seconds"] for line in lines if line["event"] == "picture"]
    return statistics.mean(taken)


def parse() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(prog="python benchmarks/shared_machine.py")
    p.add_argument("--policy", nargs="+", choices=POLICIES, default=list(POLICIES))
    p.add_argument("--threads", nargs="+", type=positive, default=[1, os.cpu_count() or 1])
    p.add_argument("--situation", nargs="+", choices=SITUATIONS, default=list(SITUATIONS))
    p.add_argument("--pictures", type=positive, default=2, help="in a run (default: %(default)s)")
    p.add_argument("--repeats", type=positive, default=3, help="rounds (default: %(default)s)")
    return p.parse_args()


def main() -> int:
    """Prints the table; returns the exit code."""
    args = parse()
    cells = list(product(args.situation, sorted(set(args.threads)), args.policy))
    found: dict[tuple[str, int, str], list[float]] = {cell: [] for cell in cells}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        rgb = read(SAMPLE_FOLDER / "valid" / "coffee.png").rgb[:, :HEIGHT, :WIDTH]
        for n in range(args.pictures):
            write(Picture(rgb), folder / "in" / f"{n}.png")
        try:
            for n in range(args.repeats):
                for situation, threads, policy in cells:
                    say(f"round {n + 1}: {situation}, {threads} threads, {policy}")
                    taken = seconds(situation, policy, threads, folder)
                    found[situation, threads, policy].append(taken)
        except PCSRError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    facts = machine_facts(max(args.threads))
    columns = [cell[:2] for cell in cells[:: len(args.policy)]]
    print(f"{facts['processor']}, {facts['processors']} processors, torch {facts['torch']}")
    print(f"seconds a picture, {WIDTH}x{HEIGHT} to x4; medians of {args.repeats} rounds\n")
    header = ["threads wait", *(f"{situation}, {threads}" for situation, threads in columns)]
    rows = [
        [policy, *(f"{statistics.median(found[*column, policy]):.2f}" for column in columns)]
        for policy in args.policy
    ]
    print(markdown(header, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a sweep over ``k`` costs: many values in one go, beside one value and so many evaluations.

    python benchmarks/sweep.py
    python benchmarks/sweep.py --pictures Set14 --model fsrcnn-pcsr-x4 carn-pcsr-x4 --threads 1

One value is `benchmark`, as `python -m pcsr_lightning.evaluate` runs it; the sweep is what its
`sweep=k` runs. Both read and degrade every picture. They take turns, and the ratio is taken round
by round: of CPU seconds, which other work on the machine changes least, and of seconds. Reading
the model and starting Python are left out; they would count once for the sweep and each time for
separate evaluations.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from _inputs import SCALE, load_pcsr
from _measure import markdown, positive, say

from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import PCSRError
from pcsr_lightning.evaluation import benchmark, sweep
from pcsr_lightning.inference import RoutingConfig

LOWEST, HIGHEST = -1.0, 1.0
"""Values of ``k`` lie between these, which send nearly all pixels to one class or the other."""


class Spent(NamedTuple):
    """CPU seconds of this process, and seconds."""

    cpu: float
    wall: float


def spent(work: Callable[[], object]) -> Spent:
    """What a call takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Spent(time.process_time() - cpu, time.perf_counter() - wall)


def values(count: int) -> list[float]:
    """So many values of ``k``, evenly spread."""
    step = (HIGHEST - LOWEST) / max(1, count - 1)
    return [round(LOWEST + n * step, 6) for n in range(count)]


def row(name: str, pictures: Path, count: int, rounds: int) -> list[str]:
    """A model's row of the table."""
    model = load_pcsr(name)
    routings = [RoutingConfig(k=k) for k in values(count)]
    one: list[Spent] = []
    many: list[Spent] = []
    for n in range(rounds):
        say(f"{name}, round {n + 1} of {rounds}")
        one.append(spent(lambda: benchmark(model, pictures, SCALE)))
        many.append(spent(lambda: sweep(model, pictures, routings, SCALE)))
    alone = statistics.median(s.cpu for s in one)
    ratios = [m.cpu / o.cpu for o, m in zip(one, many, strict=True)]
    walls = [m.wall / o.wall for o, m in zip(one, many, strict=True)]
    return [
        name,
        f"{alone:.2f}",
        f"{statistics.median(s.cpu for s in many):.2f}",
        f"{count * alone:.1f}",
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{statistics.median(walls):.2f} ({min(walls):.2f} to {max(walls):.2f})",
    ]


def parse() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(prog="python benchmarks/sweep.py")
    p.add_argument("--pictures", type=Path, default=SAMPLE_FOLDER / "valid", help="HR pictures")
    p.add_argument("--model", nargs="+", default=["fsrcnn-pcsr-x4"], help="names or files")
    p.add_argument("--values", type=positive, default=20, help="of k (default: %(default)s)")
    p.add_argument("--repeats", type=positive, default=5, help="rounds (default: %(default)s)")
    p.add_argument("--threads", type=positive, help="default: as torch chooses")
    return p.parse_args()


def main() -> int:
    """Prints the table; returns the exit code."""
    args = parse()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    try:
        rows = [row(name, args.pictures, args.values, args.repeats) for name in args.model]
    except PCSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    header = [
        "model", "one value, CPU s", f"sweep of {args.values}, CPU s",
        f"{args.values} evaluations, CPU s", "sweep / one value", "the same in seconds",
    ]  # fmt: skip
    print(f"{args.pictures.resolve().name}, x{SCALE}, {torch.get_num_threads()} threads, ", end="")
    print(f"medians of {args.repeats} rounds\n")
    print(markdown(header, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

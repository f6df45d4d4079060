"""Time and memory, taken so that other work on the machine disturbs the comparison least."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from pcsr_lightning.errors import PCSRError

MIB = 2**20
PRODUCT = 2048
"""Side of the square matrices whose product gives the machine's rate."""
PRODUCTS = 4
"""How many such products one timing takes."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Result = TypeVar("Result")

# A process keeps, as its own peak, that of the process it was made from until it became another
# program. A measured process is therefore started by one that is small, not by the benchmark.
_LAUNCHER = """
import json, os, sys, time
start = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(pid, 0)
seconds = time.perf_counter() - start
print(json.dumps([seconds, used.ru_maxrss, os.waitstatus_to_exitcode(status)]))
"""


def run_main(args: argparse.Namespace, work: Callable[[], None], run: Callable[[], None]) -> int:
    """What both kinds of process of a benchmark have in common; returns the exit code.

    Args:
        args: with ``threads`` and ``worker``.
        work: what a worker does.
        run: what the benchmark does.
    """
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    try:
        (run if args.worker is None else work)()
    except PCSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def positive(text: str) -> int:
    """A whole number from 1 up, as an argument's ``type``."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 up, not {text!r}")
    return int(text)


@dataclass(frozen=True)
class Timing:
    """The seconds of one way, a number for each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """What the tables compare."""
        return statistics.median(self.seconds)

    def text(self) -> str:
        """The median and, in brackets, the least and the most."""
        low, high = min(self.seconds), max(self.seconds)
        return f"{self.median:.3g} ({low:.3g} to {high:.3g})"


def interleaved(
    calls: Mapping[str, Callable[[], Result]],
    rounds: int,
    look: Callable[[str, Result], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Every call once, then every call once more, and so on: all of them meet the same weather.

    Args:
        calls: what to time, by name.
        rounds: how often.
        look: is shown each result of the first round, outside of the timing.
        clock: gives seconds; ``time.process_time`` leaves out what other processes take.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for n in range(rounds):
        say(f"round {n + 1} of {rounds}")
        for name, call in calls.items():
            start = clock()
            result = call()
            seconds[name].append(clock() - start)
            if n == 0 and look is not None:
                look(name, result)
            del result
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def matrix_products(precision: str) -> Callable[[], None]:
    """A call that multiplies large square matrices ``PRODUCTS`` times, to time beside the rest."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(PRODUCT, PRODUCT, generator=generator).to(DTYPES[precision]) for _ in "ab")
    out = torch.empty_like(a)

    def call() -> None:
        for _ in range(PRODUCTS):
            torch.mm(a, b, out=out)

    return call


def matrix_rate(timing: Timing) -> float:
    """Multiply-adds a second of :func:`matrix_products`, in thousands of millions."""
    return PRODUCTS * PRODUCT**3 / timing.median / 1e9


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    return _bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _bytes(maxrss: int) -> int:
    return maxrss if sys.platform == "darwin" else maxrss * 1024


@dataclass(frozen=True)
class Ran:
    """A command that was run as a process of its own.

    Attributes:
        seconds: from its start to its end.
        peak: the most memory it held, in bytes.
        output: what it printed.
    """

    seconds: float
    peak: int
    output: str


def run(command: Sequence[str | Path], threads: int) -> Ran:
    """Runs a command to its end.

    Raises:
        PCSRError: it failed; the message holds what it said.
    """
    whole = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *map(str, command)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(whole, capture_output=True, text=True, env=environment, check=False)
    *output, report = done.stdout.splitlines() or [""]
    seconds, maxrss, code = json.loads(report) if done.returncode == 0 else (0.0, 0, 1)
    if code:
        said = done.stderr.strip() or "\n".join(output) or "nothing"
        raise PCSRError(f"{' '.join(map(str, command))} ended with {code} and said: {said}")
    return Ran(seconds, _bytes(maxrss), "\n".join(output))


def run_worker(job: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Has ``inference.py --worker`` do a job in a fresh process, and returns what it reports.

    Raises:
        PCSRError: the worker failed.
    """
    script = Path(__file__).with_name("inference.py")
    words = [sys.executable, str(script), "--worker", json.dumps(job), "--threads", str(threads)]
    report: dict[str, Any] = json.loads(run(words, threads).output.splitlines()[-1])
    return report


def machine_facts(threads: int) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if names:
            return names[0].split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are set to the right."""
    line = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, line, *rows])


def say(message: str) -> None:
    """How far it has got, apart from the tables."""
    print(message, file=sys.stderr, flush=True)


def run_script(name: str, repeats: int, work: Callable[[int], None]) -> int:
    """The command line that the small benchmarks share; returns the exit code.

    Args:
        name: of the script.
        repeats: how many rounds, if nothing is said.
        work: takes the rounds.
    """
    p = argparse.ArgumentParser(prog=f"python benchmarks/{name}")
    p.add_argument("--repeats", type=int, default=repeats, help="rounds (default: %(default)s)")
    p.add_argument("--threads", type=int, help="default: as torch chooses")
    args = p.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    try:
        work(args.repeats)
    except PCSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0

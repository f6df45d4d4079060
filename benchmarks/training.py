"""How fast stages are trained, beside the plain loop, and that nothing was traded away for it.

    python benchmarks/training.py
    python benchmarks/training.py --quick --only fsrcnn --stages 1
    python benchmarks/training.py --device cuda

Prints three tables and writes them to ``training.md`` and ``training.json``; benchmarks/README.md
says what they show and how they are taken.

Every way is a process of its own, with the training running in it. They take turns: one trains a
block of steps while the others wait, then the next.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import plain_training
import torch
from _measure import (
    DTYPES,
    Timing,
    interleaved,
    machine_facts,
    matrix_products,
    matrix_rate,
    positive,
    run_main,
    say,
)
from _training_cuda import report, require_cuda
from _training_tables import tables
from _training_ways import WAYS, data_module, held_out, picture_folders, work
from plain_training import AHEAD, BATCH

from pcsr_lightning.data.sample_pictures import SAMPLE_FOLDER
from pcsr_lightning.errors import PCSRError

BACKBONES = ("fsrcnn", "carn", "srresnet", "bsrn")
STAGES = ("1", "2", "original")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python benchmarks/training.py", description=(__doc__ or "").split("\n\n")[0]
    )
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    p.add_argument("--quick", action="store_true", help="3 steps of each: a trial only")
    p.add_argument("--only", type=_some(BACKBONES), default=("fsrcnn", "carn"), metavar="BACKBONES")
    p.add_argument("--stages", type=_some(STAGES), default=STAGES, help="some of 1,2,original")
    p.add_argument("--steps", type=positive, metavar="N", help="steps of a turn (default: 12)")
    p.add_argument("--rounds", type=positive, metavar="R", help="turns of each way (default: 5)")
    p.add_argument("--threads", type=positive, metavar="N", help="default: as torch chooses")
    p.add_argument("--data", type=Path, metavar="DIR", help="training pictures")
    p.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("results"), help="default: %(default)s"
    )
    p.add_argument("--worker", type=json.loads, metavar="JSON", help=argparse.SUPPRESS)
    return p


def _some(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        if not set(text.split(",")) <= set(known):
            raise argparse.ArgumentTypeError(f"must be some of {','.join(known)}, not {text!r}")
        return tuple(dict.fromkeys(text.split(",")))

    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns its exit code."""
    args = parser().parse_args(argv)
    run = _run_on_cuda if args.device == "cuda" else _run
    return run_main(args, lambda: work(args.worker), lambda: run(args))


def _run_on_cuda(args: argparse.Namespace) -> None:
    require_cuda()
    roots, steps = picture_folders(args.data), args.steps or (10 if args.quick else 300)
    text = report(roots, args.only, args.stages, steps)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "training_cuda.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def _run(args: argparse.Namespace) -> None:
    block = args.steps or (2 if args.quick else 12)
    rounds = args.rounds or (1 if args.quick else 5)
    warm = 1 if args.quick else 3
    steps = warm + block * rounds
    root, val_root = picture_folders(args.data)
    shipped = root.is_relative_to(SAMPLE_FOLDER)
    facts: dict[str, Any] = {
        "machine": machine_facts(torch.get_num_threads()),
        "pictures": "the shipped pictures" if shipped else f"pictures of {root.name}/",
        "block": block,
        "rounds": rounds,
        "steps": steps,
        "quick": args.quick,
        "rows": [],
    }
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = data_module(root, val_root)
        data.prepare_data()
        data.setup()
        (folder / "crops").mkdir()
        say(f"writing {(steps + AHEAD) * BATCH} pairs of PNG files")
        plain_training.write_crops(folder / "crops", data, steps + AHEAD)
        torch.save(list(held_out(data, 1 if args.quick else 4)), folder / "held_out.pt")
        job = {
            "root": str(root), "val_root": None if val_root is None else str(val_root),
            "folder": name, "warm": warm, "block": block, "steps": steps,
        }  # fmt: skip
        for backbone in args.only:
            for stage in args.stages:
                say(f"{backbone}, stage {stage}")
                found = measure({**job, "backbone": backbone, "stage": stage}, rounds)
                facts["rows"] += found
                facts["machine"]["load_after"] = round(os.getloadavg()[0], 2)
                text = tables(facts)
                # After each stage: a run that is cut short leaves what it has found.
                (args.out / "training.md").write_text(text + "\n", encoding="utf-8")
                (args.out / "training.json").write_text(
                    json.dumps(facts, indent=1) + "\n", encoding="utf-8"
                )
    print(text)


class Worker:
    """A way's process, seen from outside."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.way: str = job["way"]
        threads = str(torch.get_num_threads())
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(job), "--threads", threads],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )

    def answer(self) -> dict[str, Any]:
        """What the process says when it is ready with what it does.

        Raises:
            PCSRError: it failed; the message holds what it said.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise PCSRError(f"{self.way} ended and said: {self.errors.read().strip()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def go_on(self) -> dict[str, Any]:
        """Lets it go on, to its next stop or its end."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """Ends the process if it has not ended by itself."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait()
        self.errors.close()


def measure(job: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """All ways of training one stage: a row each."""
    workers = [Worker({**job, "way": way}) for way in WAYS]
    try:
        for worker in workers:  # they start side by side, and wait after their first steps
            worker.answer()
        calls: dict[str, Callable[[], object]] = {w.way: w.go_on for w in workers}
        calls |= {precision: matrix_products(precision) for precision in DTYPES}
        timings = interleaved(calls, rounds)
        rates = {precision: matrix_rate(timings[precision]) for precision in DTYPES}
        rows = []
        for worker in workers:
            report = worker.go_on()
            precision, _ = WAYS[worker.way]
            seconds = [s / job["block"] for s in timings[worker.way].seconds]
            share = report["gmacs"] / Timing(tuple(seconds)).median / rates[precision]
            row = {key: job[key] for key in ("backbone", "stage")} | {"way": worker.way}
            rows.append(
                {**row, "seconds": seconds, "matrix_share": share, **report, "rates": rates}
            )
        return rows
    finally:
        for worker in workers:
            worker.close()


if __name__ == "__main__":
    sys.exit(main())

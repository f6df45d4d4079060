"""How fast pictures are enlarged, beside the plain way and the original models.

    python benchmarks/inference.py
    python benchmarks/inference.py --quick --only 1,2
    python benchmarks/inference.py --device cuda

Prints five tables and writes them to ``inference.md`` and ``inference.json``; benchmarks/README.md
says what they show and how they are taken. On a CUDA device: other tables, ``inference_cuda.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import _counts
import _files
import _growth
import _inference_cuda
import _tables
import _training_cuda
import torch
from _inputs import Models, Photograph, find_models, find_photograph, shared_folder
from _measure import machine_facts, positive, run_main
from _ways import work

TABLES = (1, 2, 3, 4, 5)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python benchmarks/inference.py", description=(__doc__ or "").split("\n\n")[0]
    )
    p.add_argument("--quick", action="store_true", help="small pictures, one round: a trial only")
    p.add_argument("--only", type=_numbers, default=TABLES, help="which tables, e.g. 1,2")
    p.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="default: cpu; cuda: 4 minutes"
    )
    p.add_argument("--repeats", type=positive, default=5, metavar="N", help="rounds (default: 5)")
    p.add_argument("--threads", type=positive, metavar="N", help="default: as torch chooses")
    p.add_argument("--model", metavar="NAME_OR_FILE", help="a PCSR model other than CARN's")
    p.add_argument("--original", metavar="NAME_OR_FILE", help="the original model beside it")
    p.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("results"), help="default: %(default)s"
    )
    p.add_argument("--worker", type=json.loads, metavar="JSON", help=argparse.SUPPRESS)
    return p


def _numbers(text: str) -> tuple[int, ...]:
    known = {str(table): table for table in TABLES}
    if not set(text.split(",")) <= set(known):
        raise argparse.ArgumentTypeError(f"must be some of 1,2,3,4,5, not {text!r}")
    return tuple(sorted({known[part] for part in text.split(",")}))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns its exit code."""
    args = parser().parse_args(argv)
    return run_main(args, lambda: print(json.dumps(work(args.worker))), lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    shared = shared_folder()
    models = find_models(shared, args.model, args.original)
    photograph = find_photograph(shared)
    if args.device == "cuda":
        _training_cuda.require_cuda()
        return _run_cuda(args, models, photograph, shared)
    threads, rounds = torch.get_num_threads(), 1 if args.quick else args.repeats
    facts: dict[str, Any] = {
        "machine": machine_facts(threads),
        "model": Path(models.pcsr).name,
        "original": None if models.original is None else Path(models.original).name,
        "photograph": photograph.name,
        "rounds": rounds,
        "quick": args.quick,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    parts = [_heading(facts)]
    print(parts[0], flush=True)
    # After each table: a run that is cut short leaves what it has found.
    for table in _tables_of(args, models, photograph, rounds, threads, facts):
        print(f"\n{table}", flush=True)
        parts.append(table)
        facts["machine"]["load_after"] = round(os.getloadavg()[0], 2)
        (args.out / "inference.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        text = json.dumps(facts, indent=1)
        (args.out / "inference.json").write_text(text + "\n", encoding="utf-8")


def _run_cuda(
    args: argparse.Namespace, models: Models, photograph: Photograph, shared: Path | None
) -> None:
    """CARN, or the model that was named, and FSRCNN beside it."""
    names = [models]
    if args.model is None:
        names.append(find_models(shared, None, None, "fsrcnn"))
    pairs = [(pair.pcsr, pair.original) for pair in names]
    text = _inference_cuda.report(pairs, photograph, args.device, args.quick)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "inference_cuda.md").write_text(text + "\n", encoding="utf-8")


def _tables_of(
    args: argparse.Namespace,
    models: Models,
    photograph: Photograph,
    rounds: int,
    threads: int,
    facts: dict[str, Any],
) -> Iterator[str]:
    """The tables that were asked for, one after another; ``facts`` gets what is in them."""
    only: tuple[int, ...] = args.only
    common = (models, photograph)
    if {1, 2} & set(only):
        sizes = _tables.QUICK_SIZES if args.quick else _tables.SIZES
        facts["ways"] = []
        for size in sizes:
            field = _tables.measure(*common, size, rounds, threads, 1 in only)
            facts["ways"].append(field.facts())
            if 1 in only:
                yield _table(1, "every way to the same picture", _tables.table_1(field))
            if 2 in only:
                title = "ours against the original with our layout, strips and precision"
                yield _table(2, title, _tables.table_2(field))
    if 3 in only:
        facts["growth"] = _growth.measure(*common, rounds, threads, args.quick)
        _growth.plot(facts["growth"], args.out / "growth.png")
        table = f"{_growth.table_3(facts['growth'])}\n\n![growth](growth.png)"
        yield _table(3, "as the picture grows", table)
    if 4 in only:
        facts["files"] = _files.measure(*common, rounds, threads, args.quick)
        yield _table(4, "from file to file", _files.table_4(facts["files"]))
    if 5 in only:
        yield _table(5, "multiply-adds, counted and predicted", _counts.table_5(*common))


def _table(number: int, title: str, text: str) -> str:
    return f"## Table {number}: {title}\n\n{text}"


def _heading(facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    rounds = f"{facts['rounds']} round{'s' if facts['rounds'] > 1 else ''}"
    lines = [
        "# Inference",
        f"{facts['model']} and {facts['original'] or 'no original model'}, x4, photograph "
        f"{facts['photograph']}. {machine['processor']}, {machine['threads']} threads, torch "
        f"{machine['torch']}, load {machine['load_before']} at the start. Medians of {rounds} in "
        "which the rows take turns; the least and the most in brackets.",
    ]
    if facts["quick"]:
        lines.append("A quick trial on small pictures: the numbers mean nothing.")
    return "\n\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

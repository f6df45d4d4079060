"""Which HR pixels a first stage should train on: drawn from each crop, or of every LR pixel.

    python benchmarks/queries.py --train DIR --valid DIR
    python benchmarks/queries.py --quick        # a trial: does it run? The numbers mean nothing

Each way trains the first stage of a release recipe, with all of its settings but the number of
steps and the pixels: the same number of pixels a step in both. One training after the other, on one
thread, the ways in turn; seconds a step are of CPU time, the median over the steps of all seeds.
The faster way is then trained once more, for as many steps as the slower way's time allows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
from hydra import compose, initialize_config_dir

from pcsr_lightning import conf_dir
from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.training import train

WAYS = ("2048", "per_pixel:2")
"""``stage.queries``; an LR crop has 32 x 32 pixels."""
STEPS = {"fsrcnn-pcsr-x4": 2500, "carn-pcsr-x4": 600}
SAME = 0.02
"""Step times that differ by less are not trained at equal time."""


class Run(NamedTuple):
    """A training that has ended."""

    recipe: str
    queries: str
    steps: int
    seed: int
    psnr: float
    seconds: float


class StepTimes(L.Callback):
    """CPU seconds from each step's end to the next one's."""

    found: list[float]
    _last: float | None = None

    def on_train_start(self, *_: Any) -> None:
        StepTimes.found, self._last = [], None

    def on_train_batch_end(self, *_: Any) -> None:
        now = time.process_time()
        if self._last is not None:
            StepTimes.found.append(now - self._last)
        self._last = now


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--train", type=Path, default=SAMPLE_FOLDER / "train")
    p.add_argument("--valid", type=Path, default=SAMPLE_FOLDER / "valid")
    p.add_argument("--recipes", nargs="+", default=list(STEPS), choices=list(STEPS))
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--quick", action="store_true", help="four steps of each, one seed")
    p.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "queries.json")
    return p.parse_args()


def trained(args: argparse.Namespace, recipe: str, queries: str, steps: int, seed: int) -> Run:
    """Trains the first stage of a recipe."""
    experiment = [f"experiment=release/{recipe}"]
    more = [
        f"stage.queries={queries}", f"seed={seed}", f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps}", "data=folder", f"data.root={args.train}",
        f"data.val_root={args.valid}", f"data.val_limit={2 if args.quick else 20}", "threads=1",
        "trainer.accelerator=cpu", "logger=none", "callbacks.progress=null",
        "+callbacks.step_times._target_=queries.StepTimes",
    ]  # fmt: skip
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        first = [w for w in compose("train", experiment).stages[0] if not w.startswith("stage=")]
        cfg = compose("train", [*experiment, "stage='1'", *first, *more])
    with tempfile.TemporaryDirectory() as folder:
        psnr = train(cfg, folder)["val/psnr"]
    return Run(recipe, queries, steps, seed, psnr, statistics.median(StepTimes.found))


def compared(args: argparse.Namespace, recipe: str) -> list[Run]:
    """Both ways at equal steps, then the faster one at the slower one's time."""
    steps, seeds = (4, 1) if args.quick else (STEPS[recipe], args.seeds)
    runs = []
    for seed in range(seeds):
        for queries in WAYS:
            runs.append(trained(args, recipe, queries, steps, seed))
            print(runs[-1], flush=True)
    seconds = {
        way: statistics.median(run.seconds for run in runs if run.queries == way) for way in WAYS
    }
    fast, slow = sorted(seconds, key=lambda way: seconds[way])
    if seconds[slow] / seconds[fast] < 1 + SAME:
        print(f"{recipe}: a step of both takes the same time", flush=True)
        return runs
    for seed in range(seeds):
        longer = round(steps * seconds[slow] / seconds[fast])
        runs.append(trained(args, recipe, fast, longer, seed))
        print(runs[-1], flush=True)
    return runs


def table(runs: list[Run]) -> str:
    """One row for each recipe, way and number of steps: mean and spread over the seeds."""
    lines = [
        "| recipe, stage 1 | `stage.queries` | steps | ms a step | PSNR of each seed | mean |",
        "|---|---|---|---|---|---|",
    ]
    for recipe, queries, steps in dict.fromkeys(run[:3] for run in runs):
        same = [run for run in runs if run[:3] == (recipe, queries, steps)]
        psnrs = [run.psnr for run in same]
        each = ", ".join(f"{psnr:.3f}" for psnr in psnrs)
        spread = f" ± {statistics.stdev(psnrs):.3f}" if len(psnrs) > 1 else ""
        ms = 1000 * statistics.median(run.seconds for run in same)
        lines.append(
            f"| {recipe} | {queries} | {steps:,} | {ms:.1f} | {each} "
            f"| {statistics.fmean(psnrs):.3f}{spread} |"
        )
    return "\n".join(lines)


def main() -> None:
    args = parse()
    runs: list[Run] = []
    for recipe in args.recipes:
        runs += compared(args, recipe)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps([run._asdict() for run in runs], indent=1))
    print(table(runs))


if __name__ == "__main__":
    from queries import main as run_main  # so that StepTimes is the class that the config names

    run_main()

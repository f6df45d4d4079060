"""Are times kept? Ten pictures and three budgets each: asked, predicted and realised.

    python benchmarks/time_budget.py
    python benchmarks/time_budget.py --model fsrcnn-pcsr-x4 --side 240 --threads 1

The budgets lie between what the model takes at the least and at the most, as measured here; the
fourth one is below the least. Wants an idle machine: minutes for CARN on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.images import bicubic, list_pictures, read_rgb8
from pcsr_lightning.inference import Execution, Timing, times_of
from pcsr_lightning.networks import PCSR

PARTS = (0.2, 0.5, 0.8)
SCALE = 4


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Ten pictures and three times: are they kept?")
    p.add_argument("--model", default=None, help="default: the default model")
    p.add_argument("--pictures", type=Path, default=SAMPLE_FOLDER / "valid", help="a folder")
    p.add_argument("--count", type=int, default=10)
    p.add_argument("--side", type=int, default=320, help="LR pixels of the longer side, at most")
    p.add_argument("--threads", type=int)
    p.add_argument("--device", default="cpu")
    p.add_argument("--precision", default="fp32")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a Markdown table."""
    args = parser().parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    from pcsr_lightning.weights import DEFAULT_MODEL

    name = args.model or DEFAULT_MODEL
    model = pcsr_lightning.load(name, args.device)
    assert isinstance(model, PCSR)
    execution = Execution(args.precision)
    times_of(model, (SCALE, SCALE), execution, again=True)
    print(f"{name}, x{SCALE}, {args.precision}, {torch.get_num_threads()} threads, {args.device}\n")
    print("| picture | LR size | asked | predicted | took | took / asked |")
    print("|---|---|---|---|---|---|")
    kept = []
    for path in list_pictures(args.pictures)[: args.count]:
        lr = _shrunk(path, args.side).to(args.device)
        low, high = (_timing(model, lr, seconds, args.precision) for seconds in (1e-6, 1e6))
        asked = [low.floor + part * (high.predicted - low.floor) for part in PARTS]
        for seconds in (*asked, 0.7 * low.floor):
            timing = _timing(model, lr, seconds, args.precision)
            possible = timing.asked >= timing.floor
            ratio = f"{timing.took / timing.asked:.3f}" if possible else "floor"
            if possible:
                kept.append(timing.took / timing.asked)
            print(
                f"| {path.stem} | {lr.shape[3]} x {lr.shape[2]} | {timing.asked:.3f} s "
                f"| {timing.predicted:.3f} s | {timing.took:.3f} s | {ratio} |",
                flush=True,
            )
    within = statistics.fmean(0.9 <= ratio <= 1.1 for ratio in kept)
    print(
        f"\ntook / asked: median {statistics.median(kept):.3f}, from {min(kept):.3f} to "
        f"{max(kept):.3f}; within 10 %: {100 * within:.0f} % of {len(kept)}"
    )
    return 0


def _shrunk(path: Path, side: int) -> Tensor:
    hr = read_rgb8(path).float() / 255
    h, w = hr.shape[1:]
    factor = min(1, side / max(h, w))
    return bicubic(hr, (max(1, round(h * factor)), max(1, round(w * factor)))).clamp(0, 1)[None]


def _timing(model: PCSR, lr: Tensor, seconds: float, precision: str) -> Timing:
    result = pcsr_lightning.upscale(model, lr, SCALE, time_budget=seconds, precision=precision)
    assert result.timing is not None
    return result.timing


if __name__ == "__main__":
    sys.exit(main())

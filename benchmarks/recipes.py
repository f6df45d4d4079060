"""What a choice of the first stage's recipe is worth: validation PSNR after so many CPU seconds.

    python benchmarks/recipes.py --train DIR --valid DIR --backbone carn --optimizer muon --lr 5e-3

One training a call, on one thread, from random weights; the learning rate falls in a straight line
to nothing at the last second. Seconds are the process's own CPU time, so other work on the machine
changes them little; validation is not counted, a teacher's work is. Shapes: B crops, Q query
pixels, h w LR size, H W HR size.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
from _drawn_pixels import crops_of
from torch import Tensor

from pcsr_lightning.data import SRDataModule
from pcsr_lightning.data.batches import StepBatches, TrainBatch
from pcsr_lightning.data.pairs import validation_pair
from pcsr_lightning.evaluation import psnr
from pcsr_lightning.networks import PCSR
from pcsr_lightning.networks.modes import evaluating
from pcsr_lightning.training import Muon
from pcsr_lightning.training.distillation import Teacher
from pcsr_lightning.training.initialization import stage_network
from pcsr_lightning.training.modules.pcsr_stage import at_queries

LOSSES = ["l1", "l2", "charbonnier", "frequency", "rmse", "psnr"]
"""``rmse`` and ``psnr`` are means over crops: easy crops count for more than in ``l2``."""
WARMUP = 50
UNCOUNTED = 4
"""First steps, in which libraries make their kernels."""
LOOKS = 3
"""Validations, spread over the time."""


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--train", type=Path, required=True)
    p.add_argument("--valid", type=Path, required=True)
    p.add_argument("--backbone", default="fsrcnn")
    p.add_argument("--optimizer", choices=["adam", "muon"], default="muon")
    p.add_argument("--lr", type=float, default=5e-3)
    p.add_argument("--vector_lr", type=float, default=1.0, help="share of --lr for Muon's Adam")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--crop", type=int, default=32, help="side of an LR crop")
    p.add_argument("--queries", type=int, default=2048, help="a crop and step; 0 takes all")
    p.add_argument("--loss", choices=LOSSES, default="l1")
    p.add_argument("--weight", type=float, default=0.002, help="of the frequency term")
    p.add_argument("--ema", type=float, default=0.995, help="decay of the averaged weights")
    p.add_argument("--teacher", help="a larger model; its pictures are mixed into the truth")
    p.add_argument("--share", type=float, default=0.5, help="of the teacher's picture in it")
    p.add_argument("--seconds", type=float, default=200.0)
    return p.parse_args()


def batches(data: SRDataModule, batch: int) -> StepBatches:
    data.prepare_data()
    data.setup()
    return crops_of(data, batch, 0)


def loss_of(args: argparse.Namespace, error_B3Q: Tensor, side: int) -> Tensor:
    if args.loss == "l2":
        return 20 * error_B3Q.square().mean()
    if args.loss in ("rmse", "psnr"):
        mse_B = error_B3Q.square().mean((1, 2))
        return (mse_B + 1e-6).sqrt().mean() if args.loss == "rmse" else (mse_B + 1e-4).log().mean()
    if args.loss == "charbonnier":
        return (error_B3Q.square() + 1e-6).sqrt().mean()
    loss = error_B3Q.abs().mean()
    if args.loss == "frequency":
        loss = (
            loss + args.weight * torch.fft.rfft2(error_B3Q.unflatten(2, (side, side))).abs().mean()
        )
    return loss


def step(
    args: argparse.Namespace, network: PCSR, teacher: Teacher | None, batch: TrainBatch
) -> Tensor:
    side = batch.hr_B3HW.shape[-1]
    queries = torch.randint(side * side, (args.queries,)) if args.queries else None
    truth_B3Q = at_queries(batch.hr_B3HW, queries)
    with torch.autocast("cpu", torch.bfloat16):
        if teacher is not None:
            truth_B3Q = teacher.target(batch.lr_B3hw, truth_B3Q, (side, side), queries)
        sr_B3Q = network(batch.lr_B3hw, (side, side), queries).mixed()
    return loss_of(args, sr_B3Q.float() - truth_B3Q, side)


@torch.no_grad()
def validate(network: PCSR, data: SRDataModule) -> float:
    found = []
    with evaluating(network):
        for raw in data.val_dataloader():
            pair = validation_pair(raw, 4.0)
            size = (pair.hr.shape[-2], pair.hr.shape[-1])
            sr = network(pair.lr, size).mixed().reshape(pair.hr.shape)
            found.append(psnr(sr, pair.hr, 4))
    return sum(found) / len(found)


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = stage_network("1", args.backbone, 2)
    assert isinstance(network, PCSR)
    teacher = Teacher.load(args.teacher, args.share) if args.teacher else None
    data = SRDataModule(args.train, args.valid, lr_crop=args.crop, val_limit=20)
    crops = batches(data, args.batch)
    optimizer: torch.optim.Optimizer
    if args.optimizer == "muon":
        optimizer = Muon(network, args.lr, vector_lr=args.vector_lr)
    else:
        optimizer = torch.optim.Adam(network.parameters(), args.lr, (0.9, 0.99), fused=True)
    shares = [group["lr"] / args.lr for group in optimizer.param_groups]
    average = copy.deepcopy(network)
    spent, number, look = 0.0, 0, 1
    network.train()
    while spent < args.seconds:
        start = time.process_time()
        rate = args.lr * min(1.0, (number + 1) / WARMUP) * (1 - spent / args.seconds)
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = rate * share
        raw = crops[number]
        batch = data.pairs.train_batch(raw)
        optimizer.zero_grad()
        step(args, network, teacher, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        number += 1
        decay = min(args.ema, (1 + number) / (10 + number))
        for old, new in zip(
            average.state_dict().values(), network.state_dict().values(), strict=True
        ):
            if new.dtype.is_floating_point:
                old.lerp_(new, 1 - decay)
        if number > UNCOUNTED:
            spent += time.process_time() - start
        if spent >= args.seconds * look / LOOKS:
            look += 1
            print(
                f"{number:,} steps, {spent:.0f} s: {validate(network, data):.3f} dB, "
                f"averaged weights {validate(average, data):.3f} dB",
                flush=True,
            )


if __name__ == "__main__":
    main()

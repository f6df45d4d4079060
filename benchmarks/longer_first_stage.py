"""Trains a first stage on, on a CPU, for so many seconds.

    python benchmarks/longer_first_stage.py --init ONE.safetensors --train DIR --valid DIR --out X

Of each LR pixel ``--queries`` HR pixels are drawn, arithmetic is bfloat16, and the optimizer is
Muon with decoupled weight decay, whose rate falls in a straight line to nothing. The loss is the
squared error over that of the crop's picture before the training plus the mean of all, since PSNR
is a mean of logarithms over pictures: large errors count for less than in plain squared error.

``--synthetic W`` adds random text and random dots, for which there is no ground truth: where the
mean of the result over an LR pixel's area is off by more than ``HINGE``, W times the square of what
is beyond.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from _drawn_pixels import Drawn, crops_of, draw, query, sources_of
from PIL import Image, ImageDraw
from recipes import validate
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.data import SRDataModule
from pcsr_lightning.networks import PCSR
from pcsr_lightning.training import Muon
from pcsr_lightning.weights import load, save

WARMUP = 100
HINGE = 0.15
SYNTHETIC = (256, 32, 48)
"""How many synthetic pictures there are, and their size."""


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--init", required=True, help="a model with one class")
    p.add_argument("--train", type=Path, required=True)
    p.add_argument("--valid", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True, help="the model's file, without suffix")
    p.add_argument("--seconds", type=float, default=600)
    p.add_argument("--queries", type=int, default=1, help="HR pixels drawn from each LR pixel")
    p.add_argument("--batch", type=int, default=16, help="crops a step")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--vector_lr", type=float, default=0.2)
    p.add_argument("--weight_decay", type=float, default=0.01)
    p.add_argument("--synthetic", type=float, default=0.0, help="weight of synthetic pictures")
    p.add_argument("--surveyed", type=int, default=16_000, help="crops for the pictures' errors")
    p.add_argument("--look", type=float, default=600, help="seconds between validations")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=1)
    return p.parse_args()


def error_of(network: PCSR, drawn: Drawn) -> Tensor:
    """Mean squared error of each crop, ``(B,)``."""
    with torch.autocast("cpu", torch.bfloat16):
        feat_BPD = network.features(drawn.lr_B3hw).permute(0, 2, 3, 1).flatten(1, 2)
        made_BPn3 = query(network.upsampler(0), feat_BPD, drawn.where_BPn4)
    return (made_BPn3.float() - drawn.aim_BPn3).square().mean((1, 2, 3))


def synthetic(seed: int) -> Tensor:
    """Random text and random dots, each in two random greys, ``(N, 3, h, w)``."""
    rng, (N, h, w) = np.random.default_rng(seed), SYNTHETIC
    masks = np.zeros((N, h, w), np.float32)
    for n, mask in enumerate(masks):
        if n % 4 == 1:
            mask[rng.random((h, w)) < 10 ** rng.uniform(-2, -1)] = 1
            continue
        if n % 4 == 3:  # a grid of dots, half of them with one in the corner
            step = int(rng.integers(3, 10))
            top, left = rng.integers(step, size=2) * (rng.random() < 0.5)
            mask[top::step, left::step] = 1
            continue
        picture = Image.new("L", (w, h))
        for y in range(int(rng.integers(8)), h, 12):
            text = "".join(map(chr, rng.integers(33, 127, 12)))
            ImageDraw.Draw(picture).text((int(rng.integers(8)), y), text, fill=255)
        mask[:] = np.asarray(picture) / 255
    ends = rng.random((2, N, 1, 1)).astype(np.float32) * 0.2
    back, ink = ends[0], 1 - ends[1]
    pictures = back + (ink - back) * masks
    inverse = rng.random(N) < 0.5
    pictures[inverse] = 1 - pictures[inverse]
    return torch.from_numpy(pictures)[:, None].expand(-1, 3, -1, -1)


def beyond(network: PCSR, lr_B3hw: Tensor) -> Tensor:
    """How far the means over LR pixels are off beyond the hinge, squared."""
    h, w = lr_B3hw.shape[-2:]
    with torch.autocast("cpu", torch.bfloat16):
        made = network(lr_B3hw, (4 * h, 4 * w)).mixed()
    mean_B3hw = F.avg_pool2d(made.float().reshape(-1, 3, 4 * h, 4 * w).clamp(0, 1), 4)
    return ((mean_B3hw - lr_B3hw).abs() - HINGE).relu().square().mean()


@torch.no_grad()
def weights_of(errors_N: Tensor, sources_N: Tensor, count: int) -> Tensor:
    """The weight of each of ``count`` pictures; mean 1 over the crops looked at, per mean error."""
    total = torch.zeros(count).index_add_(0, sources_N, errors_N)
    seen = torch.bincount(sources_N, minlength=count)
    mean = errors_N.mean()
    weight = 1 / (torch.where(seen > 0, total / seen.clamp_min(1), mean) + mean)
    return weight / ((weight * seen).sum() / seen.sum()) / mean


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    network = load(args.init)
    assert isinstance(network, PCSR)
    data = SRDataModule(args.train, args.valid, seed=args.seed)
    data.prepare_data()
    data.setup()
    crops, draws = crops_of(data, args.batch, args.seed), torch.Generator().manual_seed(args.seed)
    first = args.surveyed // args.batch
    with torch.no_grad():
        errors = [error_of(network, draw(data, crops[step], 1, draws)) for step in range(first)]
    names: dict[str, int] = {}
    sources_N = sources_of(crops, range(first), names)
    count = len({picture.source for picture in crops.cache.pictures})
    weight_S = weights_of(torch.cat(errors), sources_N, count)
    print(f"{validate(network, data):.3f} dB before", flush=True)

    network.train()
    optimizer = Muon(network, args.lr, vector_lr=args.vector_lr, weight_decay=args.weight_decay)
    unlike = synthetic(args.seed) if args.synthetic else torch.empty(0)
    rates = [group["lr"] for group in optimizer.param_groups]
    start, step, look = time.time(), first, args.look
    while (spent := time.time() - start) < args.seconds:
        part = min(1.0, (step - first + 1) / WARMUP) * (1 - spent / args.seconds)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = part * rate
        batch = draw(data, crops[step], args.queries, draws)
        weight_B = weight_S[sources_of(crops, [step], names)]
        optimizer.zero_grad()
        loss = (error_of(network, batch) * weight_B).mean()
        if args.synthetic:
            at = 2 * step % len(unlike)
            loss = loss + args.synthetic * beyond(network, unlike[at : at + 2])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
        if spent > look:
            look += args.look
            print(
                f"{step - first:,} steps, {spent:.0f} s: {validate(network, data):.3f} dB",
                flush=True,
            )
    print(f"{step - first:,} steps: {validate(network, data):.3f} dB", flush=True)
    settings = json.loads(json.dumps(vars(args), default=str))
    save(network, args.out, {"made": {**settings, "steps": step - first}})


if __name__ == "__main__":
    main()

"""Trains a model's later stages on what its frozen parts say, computed once.

    python benchmarks/later_stages.py --stage1 ONE.safetensors --train DIR --valid DIR --out X

A later stage trains a few thousand numbers: the newest upsampler and the classifier (Sec. 3.3). All
else is frozen, so features and the heaviest upsampler's output are computed once for every crop and
kept in memory; a step then costs a small part of one that runs them. Two ways to train:

``--loss mixed`` is the paper's: the error of the upsamplers' outputs mixed by the classifier's
probabilities, and the average loss (Eq. 5 to 8).

``--loss hard`` takes the all-heavy picture for ground truth, which is nearly the expectation of the
real one and has no noise. A class's loss at a pixel is its squared distance from the heaviest
class's output plus a price for its cost. The classifier learns the cheapest class by cross-entropy,
weighted by what a mistake costs. The price is moved until the wanted share of pixels is heavy. It
is ``--flat`` times as high where the ground truth is flat: noise is no reason to pay.

``--upsamplers "[[58,58,58,58],[10,10,10],[]]"`` gives the hidden widths. An empty list is a free
class, the bilinear picture alone, whose stage trains the classifier.

``--photo`` makes the crops as ``data/degradation=photo`` does. With a model of ``denoise=true``
each batch has its own strength, as in the first stage.

Legend: N crops, P LR pixels of a crop, n HR pixels drawn from each, D features, M classes.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path
from typing import NamedTuple

import torch
from _drawn_pixels import LR, crops_of, draw, flat_pixels, query, query_at, sources_of
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.data import PhotoDegradation, SRDataModule
from pcsr_lightning.data.pairs import validation_pair
from pcsr_lightning.evaluation import psnr
from pcsr_lightning.inference.flops import model_macs
from pcsr_lightning.networks import (
    PCSR,
    add_bias_shifts,
    bilinear_upsample,
    fix_strength,
    has_bias_shifts,
)
from pcsr_lightning.networks.query_grid import QueryGrid
from pcsr_lightning.routing import CostRule
from pcsr_lightning.routing.cost import class_costs
from pcsr_lightning.routing.refine import refine
from pcsr_lightning.training.initialization import init_from_previous_stage, stage_network
from pcsr_lightning.training.losses import average_loss
from pcsr_lightning.weights import load, save

AT_ONCE = 16
"""Crops that the frozen parts see at once; in multi-scale training they share a scale."""
WARMUP = 100


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--stage1", required=True, help="a model with one class")
    p.add_argument("--init", help="a model of all classes, whose last stage is trained on")
    p.add_argument("--train", type=Path, required=True)
    p.add_argument("--valid", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True, help="the model's file, without suffix")
    p.add_argument("--num_classes", type=int, default=2)
    p.add_argument("--upsamplers", type=json.loads, help="hidden widths, heaviest first")
    p.add_argument("--scale", type=float, nargs="+", default=[4.0], help="one, or two ends")
    p.add_argument("--crops", type=int, default=24_000)
    p.add_argument("--queries", type=int, default=2, help="HR pixels drawn from each LR pixel")
    p.add_argument("--batch", type=int, default=16, help="crops a step")
    p.add_argument("--steps", type=int, default=10_000, help="of each stage")
    p.add_argument("--lr", type=float, default=5e-3, help="Adam's, falling to nothing")
    p.add_argument("--photo", action="store_true", help="noisy and compressed crops")
    p.add_argument("--full_strength", type=float, default=0.67, help="share of batches cleaned")
    p.add_argument("--loss", choices=["hard", "mixed"], default="hard")
    p.add_argument("--share", type=float, default=0.4, help="of pixels not in the last class")
    p.add_argument("--flat", type=float, default=1.0, help="times the price where HR is flat")
    p.add_argument("--w_light", type=float, default=0.03, help="of the last class at all pixels")
    p.add_argument("--at_0", type=float, default=0.44, help="the same share at k = 0 in the end")
    p.add_argument("--at_1", type=float, default=0.2, help="and at k = 1, proportional cost")
    p.add_argument("--cache", type=Path, help="a file to keep the frozen parts' outputs in")
    p.add_argument("--look", type=int, default=2_000, help="steps between validations")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=1)
    return p.parse_args()


class Frozen(NamedTuple):
    """What the frozen parts say of every crop, in float16."""

    feat_NPD: Tensor
    where_NPn4: Tensor  # dy, dx, cell, cell
    residual_NPnJ3: Tensor  # of each frozen upsampler
    aim_NPn3: Tensor  # the residual that gives the ground truth
    flat_NP: Tensor  # 1 where the ground truth is flat
    strength_N: Tensor  # how much the crop is cleaned; 1 where that cannot be set


@torch.inference_mode()
def freeze(args: argparse.Namespace, network: PCSR, data: SRDataModule) -> Frozen:
    """Runs backbone and ``U_0`` on ``args.crops`` crops."""
    crops, draws = crops_of(data, AT_ONCE, args.seed), torch.Generator().manual_seed(args.seed)
    N, P, n, D = args.crops, LR * LR, args.queries, network.backbone.out_channels
    half = torch.float16
    out = Frozen(
        torch.empty(N, P, D, dtype=half),
        torch.empty(N, P, n, 4, dtype=half),
        torch.empty(N, P, n, 1, 3, dtype=half),
        torch.empty(N, P, n, 3, dtype=half),
        torch.empty(N, P, dtype=half),
        torch.ones(N),
    )
    for number in range(N // AT_ONCE):
        lr_B3hw, where, aim, hr = draw(data, crops[number], n, draws)
        fixed = network
        if has_bias_shifts(network):
            full, strength = torch.rand(2, generator=draws).tolist()
            strength = 1.0 if full < args.full_strength else strength
            fix_strength(fixed := copy.deepcopy(network), strength)
            out.strength_N[number * AT_ONCE : (number + 1) * AT_ONCE] = strength
        feat = fixed.features(lr_B3hw).permute(0, 2, 3, 1).flatten(1, 2)
        here = slice(number * AT_ONCE, (number + 1) * AT_ONCE)
        out.feat_NPD[here], out.where_NPn4[here], out.aim_NPn3[here] = feat, where, aim
        out.flat_NP[here] = flat_pixels(hr).half()
        out.residual_NPnJ3[here, :, :, 0] = query(fixed.upsampler(0), feat, where)
    return out


def weights_of(frozen: Frozen, sources_N: Tensor) -> Tensor:
    """One over the all-heavy error of each crop's picture at its scale, the mean being 1.

    PSNR is the mean over pictures of a logarithm, so an error counts by its share of its picture's.
    """
    parts = zip(frozen.residual_NPnJ3.split(500), frozen.aim_NPn3.split(500), strict=True)
    mse_N = torch.cat(
        [(r[..., 0, :].float() - a.float()).square().mean((1, 2, 3)) for r, a in parts]
    )
    # An error at x2 is a fraction of one at x4.
    scale_N = (8 / frozen.where_NPn4[:, 0, 0, 2].float()).round().long()
    usual_N = mean_by(mse_N, scale_N)[scale_N] / mse_N.mean()
    weight_N = 1 / (mean_by(mse_N / usual_N, sources_N)[sources_N] * usual_N + 2e-4)
    return weight_N / weight_N.mean()


def mean_by(value_N: Tensor, group_N: Tensor) -> Tensor:
    """The mean of each group's values."""
    total = torch.zeros(int(group_N.max()) + 1).index_add_(0, group_N, value_N)
    return total / torch.bincount(group_N).clamp_min(1)


class Picture(NamedTuple):
    """A validation picture, ready for any classifier and last upsampler."""

    feat: Tensor
    frozen: list[Tensor]
    base: Tensor
    hr: Tensor


@torch.inference_mode()
def pictures_of(network: PCSR, data: SRDataModule) -> list[Picture]:
    """The validation pictures."""
    found = []
    for raw in data.val_dataloader():
        pair = validation_pair(raw, data.val_scale, data.degradation, data.seed)
        feat, size = network.features(pair.lr), (pair.hr.shape[-2], pair.hr.shape[-1])
        heavy = network.residual(feat, grid_of(network, feat, pair.hr), 0)
        found.append(Picture(feat, [heavy], bilinear_upsample(pair.lr, size), pair.hr))
    return found


def grid_of(network: PCSR, feat: Tensor, hr: Tensor) -> QueryGrid:
    """The queries of a picture."""
    return network.grid((feat.shape[-2], feat.shape[-1]), (hr.shape[-2], hr.shape[-1]))


@torch.inference_mode()
def offset_for(network: PCSR, pictures: list[Picture], share: float) -> float:
    """What to add to the last class's logit so that it gets all but ``share`` of the pixels."""
    found = []
    for p in pictures:
        logits = network.logits(p.feat, grid_of(network, p.feat, p.hr))
        found.append((logits[:, :-1].amax(1) - logits[:, -1]).flatten()[::7])
    margin = torch.cat(found)
    return float(margin.kthvalue(int((1 - share) * len(margin)))[0])


@torch.inference_mode()
def validate(network: PCSR, pictures: list[Picture], scale: float, offset: float) -> str:
    """PSNR of every class alone and of ``k = 0``, and the classes' shares."""
    M = network.num_classes
    total, shares = torch.zeros(M + 1), torch.zeros(M)
    for p in pictures:
        grid = grid_of(network, p.feat, p.hr)
        own = [network.residual(p.feat, grid, j) for j in range(len(p.frozen), M)]
        logits = network.logits(p.feat, grid)
        logits[:, -1] += offset
        class_BHW = logits.argmax(1)
        shares += torch.bincount(class_BHW.flatten(), minlength=M) / class_BHW.numel()
        made = [p.base + r for r in (*p.frozen, *own)]
        routed = sum(torch.where((class_BHW == j)[:, None], made[j], 0) for j in range(M))
        if scale >= 4:
            routed = refine(routed, class_BHW.to(torch.uint8), M)
        for n, sr in enumerate([*made, routed]):
            total[n] += psnr(sr, p.hr, int(scale))
    names = [
        *(f"class {j} alone" for j in range(M)),
        " ".join(f"{100 * share / len(pictures):.0f}" for share in shares) + " %",
    ]
    return ", ".join(
        f"{name} {dB / len(pictures):.3f}" for name, dB in zip(names, total, strict=True)
    )


def loss_of(
    args: argparse.Namespace,
    network: PCSR,
    batch: list[Tensor],
    weight_N: Tensor,
    price: float,
    costs_M: Tensor,
) -> tuple[Tensor, float]:
    """The loss of a step, and the share of pixels whose cheapest class is not the last."""
    feat, where, frozen, aim, flat_BP, strength_B = batch
    M, w, strength = network.num_classes, weight_N[:, None, None], float(strength_B[0])
    last = query_at(strength, network.upsampler(M - 1), feat, where)
    logits = query_at(strength, network.classifier, feat, where)
    prob = logits.softmax(-1)
    residual = torch.cat([frozen, last[:, :, :, None]], 3)
    if args.loss == "mixed":
        mixed = (prob[..., None] * residual).sum(3)
        recon = ((mixed - aim).abs().mean(-1) * w).mean()
        average = average_loss(logits.flatten(0, 2).T[None])
        return 1000 * recon + 3 * average, float(prob.detach()[..., :-1].sum(-1).mean())
    distance = (residual - frozen[:, :, :, :1]).square().mean(-1) * w[..., None]
    with torch.no_grad():
        pay_BP = price**2 * (1 + (args.flat - 1) * flat_BP)
        total = distance + pay_BP[..., None, None] * costs_M
        cheapest = total.argmin(-1)
        order = total.sort(-1).values.sqrt()
        mistake = (order[..., 1] - order[..., 0]) / price
        if M > 2:  # a middle class is seldom much cheaper than the next best, and would never win
            mass_M = torch.zeros(M).index_add_(0, cheapest.flatten(), mistake.flatten())
            mistake = mistake * (mass_M.sum() / M / mass_M.clamp_min(1e-6))[cheapest]
    sorting = F.cross_entropy(logits.flatten(0, 2), cheapest.flatten(), reduction="none")
    # The newest class learns where it is taken, and a little everywhere.
    shown = prob[..., -1].detach() + args.w_light
    fit = (shown * distance[..., -1]).mean() / price**2
    return (sorting * mistake.flatten()).mean() + fit, float((cheapest < M - 1).float().mean())


def train_stage(
    args: argparse.Namespace,
    network: PCSR,
    frozen: Frozen,
    weight_N: Tensor,
    pictures: list[Picture],
    scale: float,
) -> None:
    """Trains the last upsampler and the classifier, then sets the share of ``k = 0``."""
    assert network.classifier is not None
    network.requires_grad_(False)
    trained = [*network.upsampler(network.num_classes - 1).parameters()]
    trained += network.classifier.parameters()
    for p in trained:
        p.requires_grad_(True)
    optimizer = torch.optim.Adam(trained, args.lr, (0.9, 0.99))
    order = torch.Generator().manual_seed(args.seed + network.num_classes)
    # Crops of one strength stay together; others are mixed freely.
    group = AT_ONCE if has_bias_shifts(network) else 1
    N, row, at = len(weight_N) // group, torch.empty(0, dtype=torch.int64), 0
    together = args.batch // group
    start, mean, price = time.time(), 0.0, 0.01
    costs_M = torch.tensor(model_macs(network).plain.upsamplers)
    costs_M = (costs_M - costs_M[-1]) / (costs_M[0] - costs_M[-1])  # the heaviest's is 1
    for step in range(args.steps):
        rate = args.lr * min(1.0, (step + 1) / WARMUP) * (1 - step / args.steps)
        optimizer.param_groups[0]["lr"] = rate
        if at + together > len(row):
            row, at = torch.randperm(N, generator=order), 0
        chosen, at = row[at : at + together], at + together
        chosen = (chosen[:, None] * group + torch.arange(group)).flatten()
        batch = [t[chosen].float() for t in frozen]
        loss, heavier = loss_of(args, network, batch, weight_N[chosen], price, costs_M)
        price *= math.exp(0.1 * (heavier - args.share))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean += (loss.item() - mean) * max(0.01, 1 / (step + 1))
        if (step + 1) % args.look == 0 or step + 1 == args.steps:
            said = "; ".join(
                validate(network, pictures, scale, offset_for(network, pictures, share))
                for share in (args.at_0, args.at_1)
            )
            print(
                f"{step + 1:,} steps, {time.time() - start:.0f} s, loss {mean:.4f}, "
                f"price {price:.5f}: {said}",
                flush=True,
            )
    calibrate(network, pictures, args.at_0, args.at_1)


@torch.inference_mode()
def calibrate(network: PCSR, pictures: list[Picture], at_0: float, at_1: float) -> None:
    """Moves and scales the logits, in place, so that ``k`` gives these shares on the pictures.

    The order of the pixels stays. Cross-entropy leaves logits so far apart that ``k`` from 0 to 1
    would change the class of few.
    """
    classifier = network.classifier
    assert classifier is not None
    low, high = (offset_for(network, pictures, share) for share in (at_0, at_1))
    costs_M = class_costs(model_macs(network).plain.branches(4), CostRule.PROPORTIONAL)
    scale = float((costs_M[0] / costs_M[-1]).log()) / (high - low)
    output = classifier.tail[-1] if classifier.hidden else classifier.project
    output.bias[-1] += low
    for weight in output.parameters():
        weight *= scale
    if not classifier.hidden:
        classifier.offset.weight *= scale


def main() -> None:
    args = parse()
    start = time.time()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    network = load(args.stage1)
    assert isinstance(network, PCSR)
    shifted = has_bias_shifts(network)
    if shifted and (args.batch != AT_ONCE or args.num_classes > 2):
        raise SystemExit(f"a model of denoise=true needs --batch {AT_ONCE} and two classes")
    scale = args.scale[0] if len(args.scale) == 1 else args.scale
    degradation = PhotoDegradation() if args.photo else None
    data = SRDataModule(
        args.train, args.valid, scale=scale, seed=args.seed, degradation=degradation
    )
    data.prepare_data()
    data.setup()
    if args.cache is not None and args.cache.is_file():
        frozen = Frozen(*torch.load(args.cache, mmap=True))
    else:
        frozen = freeze(args, network, data)
        if args.cache is not None:
            torch.save(tuple(frozen), args.cache)
    steps = range(len(frozen.feat_NPD) // AT_ONCE)
    sources_N = sources_of(crops_of(data, AT_ONCE, args.seed), steps, {})
    weight_N = weights_of(frozen, sources_N)
    pictures = pictures_of(network, data)
    print(f"{len(weight_N):,} crops ready after {time.time() - start:.0f} s", flush=True)
    trained = load(args.init) if args.init else None
    assert trained is None or isinstance(trained, PCSR)
    for M in range(2, args.num_classes + 1):
        following = stage_network(
            str(M), network.backbone.name, args.num_classes, upsamplers=args.upsamplers
        )
        assert isinstance(following, PCSR)
        if shifted:
            add_bias_shifts(following)
        init_from_previous_stage(network, following)
        network = following.eval()
        if trained is not None and args.num_classes > M:
            network.upsampler(M - 1).load_state_dict(trained.upsampler(M - 1).state_dict())
        else:
            if trained is not None:
                network.load_state_dict(trained.state_dict())
            train_stage(args, network, frozen, weight_N, pictures, data.val_scale)
        if args.num_classes > M:
            frozen = with_another(network, frozen, pictures)
    save(network, args.out, {"made": json.loads(json.dumps(vars(args), default=str))})
    print(f"{args.out}: {time.time() - start:.0f} s in all", flush=True)


@torch.inference_mode()
def with_another(network: PCSR, frozen: Frozen, pictures: list[Picture]) -> Frozen:
    """The last upsampler's outputs beside those of the ones before."""
    last = network.num_classes - 1
    parts = zip(frozen.feat_NPD.split(100), frozen.where_NPn4.split(100), strict=True)
    more = [query(network.upsampler(last), f.float(), w.float()).half() for f, w in parts]
    for p in pictures:
        p.frozen.append(network.residual(p.feat, grid_of(network, p.feat, p.hr), last))
    residual = torch.cat([frozen.residual_NPnJ3, torch.cat(more)[:, :, :, None]], 3)
    return frozen._replace(residual_NPnJ3=residual)


if __name__ == "__main__":
    main()

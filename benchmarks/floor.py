"""What lowers the cost that every pixel pays, the backbone's, at equal training.

    python benchmarks/floor.py --train DIR --valid DIR --test Set5 Set14 --out RUNS --size fsrcnn
    python benchmarks/floor.py ... --size carn --steps 400 150 --precision bf16-mixed

Pictures, crops, optimizer, schedule, seed and steps are equal, as in ``rivals.py``; a repeated
command goes on. Tried are backbones of fewer channels or layers, backbones that work on 2 x 2
folded pixels, re-parameterised convolutions, and for CARN an early class: light upsampler and
classifier read features after one or two of three blocks, and the other blocks run only for tiles
with difficult pixels. docs/models.md has the results.

Legend: h w LR size, H W HR size, M classes.
"""

from __future__ import annotations

import argparse
import os
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import later_stages
import rivals
import torch
from _floor_parts import FoldedCARN, FoldedFSRCNN, early_and_deep
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.data import SRDataModule
from pcsr_lightning.data.pairs import validation_pair
from pcsr_lightning.evaluation import Pair, Protocol, make_pair, psnr, sweep
from pcsr_lightning.images import list_pictures, read_rgb8
from pcsr_lightning.inference.flops import PROBE, model_macs
from pcsr_lightning.networks import (
    PCSR,
    bilinear_upsample,
    build_network,
    count_macs,
    default_config,
)
from pcsr_lightning.networks.backbones import Backbone, register_backbone
from pcsr_lightning.networks.backbones.carn import CARN
from pcsr_lightning.networks.backbones.fsrcnn import FSRCNN
from pcsr_lightning.networks.backbones.registry import dotted_path, is_builtin
from pcsr_lightning.routing import RoutingConfig
from pcsr_lightning.routing.by_k import assign_by_k
from pcsr_lightning.routing.cost import class_costs
from pcsr_lightning.routing.refine import refine
from pcsr_lightning.training.initialization import init_from_previous_stage
from pcsr_lightning.weights import load, save

Variant = tuple[type[Backbone], dict[str, int]]
VARIANTS: dict[str, dict[str, Variant]] = {
    "fsrcnn": {
        "plain": (FSRCNN, {}),
        "two-layers": (FSRCNN, {"m": 2}),
        "folded-16": (FoldedFSRCNN, {"s": 16}),
        "folded-28": (FoldedFSRCNN, {"s": 28}),
        "wide": (FSRCNN, {}),
        "wide-two-layers": (FSRCNN, {"m": 2}),
    },
    "carn": {
        "plain": (CARN, {}),
        "narrow-40": (CARN, {"nf": 40}),
        "folded-72": (FoldedCARN, {"nf": 72}),
        "folded-52": (FoldedCARN, {"nf": 52}),
        "wide": (CARN, {}),
        "wide-40": (CARN, {"nf": 40}),
    },
}
"""Those called wide are trained with ``stage.reparameterized=true``."""
EARLY = {"early-1": 1, "early-2": 2}
"""After how many blocks of CARN the early class's features are taken."""
TILES = [(1, 0.0), (8, 0.0), (8, 0.5), (32, 0.5)]
"""Side in LR pixels, and the share of difficult pixels above which a tile's deep half runs."""
VALUES = [-4.0, -2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0, 4.0]


class Point(NamedTuple):
    """Of a curve: means over a set."""

    k: float
    gmacs: float
    psnr: float


def first_stage(args: argparse.Namespace, name: str) -> PCSR:
    """The first stage of a variant, trained as ``rivals.py`` trains PCSR's."""
    (cls, numbers), own = VARIANTS[args.size][name], []
    if not is_builtin(cls):
        own = [f"backbone.name={cls.name}", f"backbone._target_={dotted_path(cls)}"]
    if numbers:
        own.append("backbone.args={" + ",".join(f"{k}: {v}" for k, v in numbers.items()) + "}")
    if name.startswith("wide"):
        own.append("stage.reparameterized=true")
    group = cls.name if is_builtin(cls) else "outside"
    rivals.train(
        argparse.Namespace(**vars(args), backbone=group), f"{name}-1", args.steps[0], "stage=1",
        "optimizer.lr=2e-3", f"data.batch_size={args.batch}", "stage.queries=per_pixel:2",
        "trainer.limit_val_batches=1", *own,
    )  # fmt: skip
    network = load(args.out / f"{name}-1")
    assert isinstance(network, PCSR)
    return network


def second_stage(args: argparse.Namespace, name: str) -> PCSR:
    """Light upsampler and classifier, trained by ``later_stages.py`` on features computed once."""
    file = args.out / f"{name}-2.safetensors"
    if file.is_file():
        network = load(file)
        assert isinstance(network, PCSR)
        return network
    blocks = EARLY.get(name)
    first = first_stage(args, name if blocks is None else "plain")
    data = SRDataModule(args.train, args.valid, seed=args.seed, val_limit=5)
    data.prepare_data()
    data.setup()
    settings = argparse.Namespace(
        crops=args.crops, queries=2, seed=args.seed, batch=16, steps=args.steps[1], lr=5e-3,
        look=args.steps[1], loss="hard", share=0.4, flat=1.0, w_light=0.03, at_0=0.44, at_1=0.2,
    )  # fmt: skip
    frozen = later_stages.freeze(settings, first, data)
    pictures = later_stages.pictures_of(first, data)
    if blocks is not None:
        frozen, pictures = with_early_features(first, blocks, data, frozen, pictures, args.seed)
    config = default_config(first.backbone.name, num_classes=2)
    torch.manual_seed(args.seed)
    network = build_network({**config, "backbone": first.config()["backbone"]})
    assert isinstance(network, PCSR)
    init_from_previous_stage(first, network)
    weight_N = torch.ones(args.crops)
    later_stages.train_stage(settings, network.eval(), frozen, weight_N, pictures, 4)
    save(network, file.with_suffix(""))
    return network


@torch.inference_mode()
def with_early_features(
    network: PCSR, blocks: int, data: SRDataModule, frozen: Any, pictures: list[Any], seed: int
) -> tuple[Any, list[Any]]:
    """The same with features for the early class; what the heavy upsampler says stays."""

    def early(lr_B3hw: Tensor) -> Tensor:
        return early_and_deep(network.backbone, lr_B3hw - network.mean[:, None, None], blocks)[0]

    crops, together = later_stages.crops_of(data, later_stages.AT_ONCE, seed), later_stages.AT_ONCE
    feat_NPD = torch.empty_like(frozen.feat_NPD)
    for number in range(len(feat_NPD) // together):
        lr_B3hw = data.pairs.train_batch(crops[number]).lr_B3hw
        feat = early(lr_B3hw).permute(0, 2, 3, 1).flatten(1, 2)
        feat_NPD[number * together : (number + 1) * together] = feat
    pairs = [validation_pair(raw, 4, data.degradation, data.seed) for raw in data.val_dataloader()]
    seen = [p._replace(feat=early(pair.lr)) for p, pair in zip(pictures, pairs, strict=True)]
    return frozen._replace(feat_NPD=feat_NPD), seen


class EarlyMacs:
    """Multiply-adds of CARN whose last blocks run on some LR pixels only.

    Each layer of them runs where a later one needs it, and nowhere twice: tiles that are computed
    one by one would cost more.
    """

    def __init__(self, backbone: CARN, blocks: int) -> None:
        self.blocks, self.body, nf = blocks, backbone.body, backbone.out_channels
        body = backbone.body

        def per_pixel(module: Any, channels: int) -> float:
            return count_macs(module.eval(), torch.zeros(1, channels, PROBE, PROBE)) / PROBE**2

        self.merge = [per_pixel(merge, nf * (i + 2)) for i, merge in enumerate(body.merges)]
        inside: Any = body.blocks[0]
        self.inner = [per_pixel(merge, nf * (i + 2)) for i, merge in enumerate(inside.merges)]
        self.near = per_pixel(inside.residual.body[0], nf)
        self.rest = per_pixel(inside.residual.body[2:], nf)
        unit = 3 * (self.near + self.rest) + sum(self.inner)
        self.early = per_pixel(backbone.entry, 3) + sum(unit + m for m in self.merge[:blocks])

    def deep(self, needed_hw: Tensor) -> float:
        """Of the last blocks, where their features are needed at these LR pixels."""

        def pixels(halo: int) -> float:
            grown = F.max_pool2d(needed_hw[None, None].float(), 2 * halo + 1, 1, halo)
            return float(grown.sum())

        total = 0.0
        for place in range(self.blocks, 3):
            halo = 6 * (2 - place)  # of the blocks behind it: three units of two 3 x 3 layers
            total += pixels(halo) * self.merge[place]
            for unit, inner in enumerate(self.inner):
                own = halo + 2 * (2 - unit)
                total += pixels(own) * (self.rest + inner) + pixels(own + 1) * self.near
        return total


@torch.inference_mode()
def early_curves(model: PCSR, blocks: int, pairs: list[Pair]) -> dict[str, list[Point]]:
    """The curves of a model with an early class: means over the pictures for each ``k``."""
    backbone, macs = model.backbone, model_macs(model)
    assert isinstance(backbone, CARN)
    assert model.classifier is not None
    cost, total = EarlyMacs(backbone, blocks), torch.zeros(len(TILES), len(VALUES), 2)
    costs_M = class_costs(macs.plain.branches(4))
    for pair in pairs:
        h, w = pair.lr_13hw.shape[-2:]
        size = 4 * h, 4 * w
        grid, base = model.grid((h, w), size), bilinear_upsample(pair.lr_13hw, size)
        early, deep = early_and_deep(backbone, pair.lr_13hw - model.mean[:, None, None], blocks)
        heavy, light = model.residual(deep, grid, 0), model.residual(early, grid, 1)
        logits = model.classifier.query(early, grid)
        lr_pixel = cost.early + macs.classifier[0] + macs.project_M[1] + 16 * macs.classifier[1]
        for (t, (side, share)), (n, k) in product(enumerate(TILES), enumerate(VALUES)):
            difficult_1HW = assign_by_k(logits, costs_M, k) == 0
            tiles = F.avg_pool2d(difficult_1HW.float(), 4 * side, ceil_mode=True) > share
            needed_hw = tiles[0].repeat_interleave(side, 0).repeat_interleave(side, 1)[:h, :w]
            heavy_1HW = difficult_1HW & needed_hw.repeat_interleave(4, 0).repeat_interleave(4, 1)
            sr = refine(base + torch.where(heavy_1HW, heavy, light), (~heavy_1HW).byte(), 2)
            executed = (
                h * w * lr_pixel + cost.deep(needed_hw) + int(needed_hw.sum()) * macs.project_M[0]
                + int(heavy_1HW.sum()) * macs.tail_M[0] + int((~heavy_1HW).sum()) * macs.tail_M[1]
            )  # fmt: skip
            total[t, n] += torch.tensor([executed / 1e9, psnr(sr, pair.hr_13HW, 4)])
    means = (total / len(pairs)).tolist()
    return {
        f"tiles of {side} x {side}, more than {share:.0%}": [
            Point(k, *mean) for k, mean in zip(VALUES, means[t], strict=True)
        ]
        for t, (side, share) in enumerate(TILES)
    }


def curves(args: argparse.Namespace, pictures: Path) -> dict[str, list[Point]]:
    """The curves of all variants on a set, the plain one's first."""
    found, read = {}, [read_rgb8(path) for path in list_pictures(pictures)]
    pairs = [make_pair(picture, (4, 4), Protocol.PUBLISHED) for picture in read]
    for name in args.only:
        model = second_stage(args, name)
        if name not in EARLY:
            routings = [RoutingConfig(k=k) for k in VALUES]
            measured = sweep(model, pictures, routings, protocol=Protocol.PUBLISHED).points
            found[name] = [Point(k, m.gmacs, m.psnr) for k, m in zip(VALUES, measured, strict=True)]
            continue
        for title, curve in early_curves(model, EARLY[name], pairs).items():
            found[f"{name}, {title}"] = curve
    return found


def main() -> None:
    p = rivals.parser(__doc__)
    p.add_argument("--size", default="fsrcnn", choices=list(VARIANTS))
    p.add_argument("--only", nargs="+", help="some of the variants, plain first")
    p.add_argument("--steps", type=int, nargs=2, default=[1500, 1000], help="of both stages")
    p.add_argument("--batch", type=int, default=16, help="crops a step")
    p.add_argument("--crops", type=int, default=960, help="that the second stage sees again")
    args = p.parse_args()
    args.out = args.out.resolve()
    torch.set_num_threads(args.threads)
    here = str(Path(__file__).parent)  # where the trainings find the backbones
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    for cls in (FoldedFSRCNN, FoldedCARN):
        register_backbone(cls)
    variants = VARIANTS[args.size]
    args.only = args.only or [*variants, *(EARLY if args.size == "carn" else {})]
    print(
        "| set | variant | floor, GMACs | at k = 0: dB | GMACs | best dB | GMACs at equal PSNR "
        "| dB at equal GMACs |\n|---|---|---|---|---|---|---|---|"
    )
    for pictures in args.test:
        found = curves(args, pictures)
        plain = [point[1:] for point in found["plain"]]
        for name, curve in found.items():
            rate, gain = rivals.difference(plain, [point[1:] for point in curve])
            middle = curve[VALUES.index(0)]
            print(
                f"| {pictures.name} | {name} | {min(p.gmacs for p in curve):.2f} "
                f"| {middle.psnr:.2f} | {middle.gmacs:.2f} "
                f"| {max(p.psnr for p in curve):.2f} | {rate} % | {gain} |"
            )


if __name__ == "__main__":
    main()

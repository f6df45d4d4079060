"""A few random HR pixels of every LR pixel of a crop: nothing is gathered or scattered over a grid.

Legend: B crops, P = 32 * 32 LR pixels of a crop, n HR pixels drawn from each, D features.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from pcsr_lightning.data import SRDataModule
from pcsr_lightning.data.batches import RawCrops, StepBatches
from pcsr_lightning.networks import BilinearOnly, CellQueries, PixelMLP, biases_at
from pcsr_lightning.training.modules.pcsr_stage import at_queries

LR = 32
"""Side of an LR crop."""


def crops_of(data: SRDataModule, batch: int, seed: int) -> StepBatches:
    """An endless row of batches of crops."""
    return data.step_batches(10**9, batch_size=batch, seed=seed)


def sources_of(crops: StepBatches, steps: Iterable[int], names: dict[str, int]) -> Tensor:
    """The number of the picture that each crop of these steps is from, whatever its size.

    Args:
        crops: the batches.
        steps: which of them.
        names: numbers by name; a picture not yet in it gets the next.
    """
    found = []
    for step in steps:
        for at in crops.planner.index.locate(crops.planner.crop_numbers(step))[0]:
            source = crops.cache.pictures[crops.numbers[at]].source
            found.append(names.setdefault(source, len(names)))
    return torch.tensor(found)


class Drawn(NamedTuple):
    """LR crops and what is known of the drawn HR pixels."""

    lr_B3hw: Tensor
    where_BPn4: Tensor  # dy, dx, cell, cell
    aim_BPn3: Tensor  # the residual that gives the ground truth
    hr_BPn3: Tensor


def draw(data: SRDataModule, raw: RawCrops, n: int, draws: torch.Generator) -> Drawn:
    """Draws ``n`` HR pixels from every LR pixel of a batch."""
    batch = data.pairs.train_batch(raw)
    (B, _, h, w), size = batch.lr_B3hw.shape, torch.tensor([batch.hr_B3HW.shape[-2:]])
    queries = CellQueries.draw((h, w), size.expand(B, 2), n, draws)
    hr_B3Q = at_queries(batch.hr_B3HW, queries)
    hr, aim = (x.mT.reshape(B, h * w, n, 3) for x in (hr_B3Q, hr_B3Q - queries.base(batch.lr_B3hw)))
    return Drawn(batch.lr_B3hw, queries.offset_BhwN4.flatten(1, 2), aim, hr)


def flat_pixels(hr_BPn3: Tensor, below: float = 2 / 255) -> Tensor:
    """LR pixels around which the ground truth is flat, ``(B, P)``.

    The standard deviation of the grey values drawn from 3 x 3 LR pixels lies under ``below``.
    """
    grey = hr_BPn3.mean(-1).unflatten(1, (LR, LR)).double()
    mean, square = (
        F.avg_pool2d(x.mean(-1)[:, None], 3, 1, 1, count_include_pad=False)
        for x in (grey, grey.square())
    )
    return ((square - mean.square()).clamp_min(0).sqrt() < below).flatten(1)


def query(mlp: PixelMLP, feat_BPD: Tensor, where_BPn4: Tensor) -> Tensor:
    """An MLP at the drawn pixels: ``(B, P, n, O)``."""
    if isinstance(mlp, BilinearOnly):
        return where_BPn4.new_zeros(*where_BPn4.shape[:3], 3)
    near = F.linear(feat_BPD, mlp.project.weight, mlp.project.bias)
    return mlp.finish(near[:, :, None] + F.linear(where_BPn4, mlp.offset.weight))


class _Query(nn.Module):
    def __init__(self, mlp: PixelMLP) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, feat_BPD: Tensor, where_BPn4: Tensor) -> Tensor:
        return query(self.mlp, feat_BPD, where_BPn4)


def query_at(strength: float, mlp: PixelMLP, feat_BPD: Tensor, where_BPn4: Tensor) -> Tensor:
    """As :func:`query`, with the biases of a strength of cleaning, if the MLP has shifts."""
    whole = _Query(mlp)
    return functional_call(whole, biases_at(whole, strength), (feat_BPD, where_BPn4))

"""A few random HR pixels of every LR pixel of a crop: nothing is gathered or scattered over a grid.

Legend: B crops, P = 32 * 32 LR pixels of a crop, n HR pixels drawn from each, D features.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.data import SRDataModule
from pcsr_lightning.data.batches import RawCrops, StepBatches
from pcsr_lightning.networks import PCSR, bilinear_upsample
from pcsr_lightning.networks.pixel_mlp import PixelMLP

LR = 32
"""Side of an LR crop."""


def crops_of(data: SRDataModule, batch: int, seed: int) -> StepBatches:
    """An endless row of batches of crops."""
    assert data.cache is not None
    assert data.index is not None
    margin = data.pairs.margin
    return StepBatches(data.cache, data._numbers, data.index, batch, margin, seed, 10**9)


def sources_of(crops: StepBatches, steps: Iterable[int], names: dict[str, int]) -> Tensor:
    """The number of the picture that each crop of these steps is from, whatever its size.

    Args:
        crops: the batches.
        steps: which of them.
        names: numbers by name; a picture not yet in it gets the next.
    """
    found = []
    for step in steps:
        for at in crops.index.locate(crops.crop_numbers(step))[0]:
            source = crops.cache.pictures[crops.numbers[at]].source
            found.append(names.setdefault(source, len(names)))
    return torch.tensor(found)


def draw(
    network: PCSR, data: SRDataModule, raw: RawCrops, n: int, draws: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """LR crops, where the drawn pixels lie, ``(B, P, n, 4)``, and the right residual there."""
    batch = data.pairs.train_batch(raw._replace(window_BHWC=torch.from_numpy(raw.window_BHWC)))
    B, _, H, W = batch.hr_B3HW.shape
    grid = network.grid((LR, LR), (H, W))
    i = _pick(grid.rows_H, (B, LR, LR, n), 1, draws)
    j = _pick(grid.cols_W, (B, LR, LR, n), 2, draws)
    flat = (i * W + j).reshape(B, 1, -1).expand(B, 3, -1)
    aim = (batch.hr_B3HW - bilinear_upsample(batch.lr_B3hw, (H, W))).flatten(2).gather(2, flat)
    aim_BPn3 = aim.reshape(B, 3, LR * LR, n).permute(0, 2, 3, 1)
    offsets = torch.stack([grid.dy_H[i], grid.dx_W[j]], -1).reshape(B, LR * LR, n, 2)
    cell = torch.tensor(grid.cell).expand(B, LR * LR, n, 2)
    return batch.lr_B3hw, torch.cat([offsets, cell], -1), aim_BPn3


def _pick(nearest: Tensor, shape: tuple[int, ...], axis: int, draws: torch.Generator) -> Tensor:
    """For each LR row (axis 1) or column (axis 2) one of the HR ones that ask it, at random."""
    along = [LR if n == axis else 1 for n in range(4)]
    count = torch.bincount(nearest, minlength=LR)
    first = (count.cumsum(0) - count).view(along)
    last = first + count.view(along) - 1
    chosen = first + (torch.rand(shape, generator=draws) * count.view(along)).long()
    return torch.minimum(chosen, last)


def query(mlp: PixelMLP, feat_BPD: Tensor, where_BPn4: Tensor) -> Tensor:
    """An MLP at the drawn pixels: ``(B, P, n, O)``."""
    near = F.linear(feat_BPD, mlp.project.weight, mlp.project.bias)
    return mlp.finish(near[:, :, None] + F.linear(where_BPn4, mlp.offset.weight))

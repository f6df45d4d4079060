"""The slow way to the same training: the loop that research code mostly has.

Crops lie on disk as PNG files, one pair each; a dataset opens them one by one, and four processes
load ahead. The network is in its LIIF form: every HR pixel of every crop looks its features up with
``grid_sample``, puts its offset and its cell beside them, and goes through the whole MLPs in fp32.
``training.py`` times the library against it, and a test holds the two losses together.

Legend: B crops of a batch, h w LR size, H W HR size, Q = H * W query pixels, D feature channels,
M classes, 0 the heaviest.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from plain_way import coordinates
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from pcsr_lightning.data import SRDataModule, TrainBatch
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.networks.backbones.carn import Merge
from pcsr_lightning.training import LaterStage, SRStage

BATCH = 16
WORKERS = 4
AHEAD = 2 * WORKERS
"""Batches that the loader's processes make ahead of the step that asks."""
PARTS = ("data", "forward", "backward", "optimizer", "rest")


class Clock:
    """Where the time of each step goes, and the ends of blocks of steps.

    Args:
        warm: how many steps come before the first block.
        block: how many steps a block has.
        turn: called at each end of a block (and of the first steps), outside of all timing.
    """

    def __init__(self, warm: int, block: int, turn: Callable[[], None]) -> None:
        self.warm, self.block, self.turn = warm, block, turn
        self.steps = 0
        self._parts: dict[str, list[float]] = defaultdict(list)
        self._last = time.perf_counter()

    def mark(self, part: str) -> None:
        """Books the time since the last mark."""
        now = time.perf_counter()
        if self.steps >= self.warm:
            self._parts[part].append(now - self._last)
        self._last = now

    def step_done(self) -> None:
        """Ends a step; at a block's end, waits for the next turn."""
        self.mark("rest")
        self.steps += 1
        since = self.steps - self.warm
        if since >= 0 and since % self.block == 0:
            self.turn()
            self._last = time.perf_counter()

    def medians(self) -> dict[str, float]:
        """Median seconds a step of each part."""
        return {part: statistics.median(self._parts[part]) for part in PARTS}


def write_crops(folder: Path, data: SRDataModule, steps: int) -> None:
    """Saves the crops of the first steps, in their order, as pairs of PNG files.

    LR is made from the picture around the crop, as from a whole LR picture, and rounded to 8 bit.
    """
    crops = data.step_batches(steps, augment=False)
    for step in range(steps):
        pair = data.pairs.train_batch(crops[step])
        for name, pictures_B3HW in zip(("lr", "hr"), pair[:2], strict=True):
            pixels_BHW3 = pictures_B3HW.mul(255).round_().clamp_(0, 255).byte().movedim(1, -1)
            for b, pixels_HW3 in enumerate(pixels_BHW3.contiguous().numpy()):
                Image.fromarray(pixels_HW3).save(folder / f"{step * BATCH + b:06d}_{name}.png")


class PlainCrops(Dataset[tuple[Tensor, Tensor]]):
    """One crop an item: both files opened, flipped and transposed at random, in [0, 1]."""

    def __init__(self, folder: Path) -> None:
        self.lr_files = sorted(folder.glob("*_lr.png"))
        self.hr_files = sorted(folder.glob("*_hr.png"))

    def __len__(self) -> int:
        return len(self.lr_files)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        turns = [random.random() < 0.5 for _ in range(3)]
        lr_3hw, hr_3HW = (_opened(files[number], turns) for files in (self.lr_files, self.hr_files))
        return lr_3hw, hr_3HW


def _opened(file: Path, turns: list[bool]) -> Tensor:
    with Image.open(file) as picture:
        pixels = np.array(picture.convert("RGB"))
    if turns[0]:
        pixels = pixels[::-1]
    if turns[1]:
        pixels = pixels[:, ::-1]
    if turns[2]:
        pixels = pixels.transpose(1, 0, 2)
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float().div(255)


def train(stage: SRStage, folder: Path, steps: int, clock: Clock) -> None:
    """The plain loop: as many steps of Adam on the crops in ``folder``, in their order.

    Args:
        stage: whose network, settings and losses' weights are used, and nothing else of it.
        folder: from :func:`write_crops`, with ``AHEAD`` batches more than there are steps.
        steps: how many.
        clock: is told of every part of every step.
    """
    network = stage.network
    prepare(stage)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = stage.optimizer(trained, fused=None)
    assert stage.scheduler is not None
    scheduler = stage.scheduler(optimizer)
    loader = DataLoader(PlainCrops(folder), BATCH, shuffle=False, num_workers=WORKERS)
    batches: Iterator[list[Tensor]] = iter(loader)
    for _ in range(steps):
        lr_B3hw, hr_B3HW = next(batches)
        clock.mark("data")
        loss = plain_loss(stage, TrainBatch(lr_B3hw, hr_B3HW))
        optimizer.zero_grad()
        clock.mark("forward")
        loss.backward()  # type: ignore[no-untyped-call]
        clock.mark("backward")
        optimizer.step()
        clock.mark("optimizer")
        scheduler.step()
        loss.item()  # research code adds it to an average
        clock.step_done()
    del batches  # ends the loader's processes


def prepare(stage: SRStage) -> None:
    """Freezes what earlier stages trained, and makes CARN's batch norms layers of their own."""
    stage.network.train()
    for module in stage.frozen_parts().values():
        module.requires_grad_(False).eval()
    for merge in stage.network.modules():
        if isinstance(merge, Merge):
            # On the module itself, where it hides the class's own way.
            vars(merge)["forward"] = partial(nn.Sequential.forward, merge)


def plain_loss(stage: SRStage, batch: TrainBatch) -> Tensor:
    """The stage's loss of a batch (Eq. 6 to 8) at all of its HR pixels, in fp32."""
    network = stage.network
    if isinstance(network, Original):
        sr_B3HW: Tensor = network(batch.lr_B3hw)
        return (sr_B3HW - batch.hr_B3HW).abs().mean()
    size = (batch.hr_B3HW.shape[-2], batch.hr_B3HW.shape[-1])
    sr_BQ3, prob_BQM = plain_forward(network, batch.lr_B3hw, size)
    recon = (sr_BQ3 - batch.hr_B3HW.flatten(2).transpose(1, 2)).abs().mean()
    if prob_BQM is None:
        return recon
    assert isinstance(stage, LaterStage)
    B, Q, M = prob_BQM.shape
    equal = B * Q / M
    average = ((prob_BQM.sum(dim=(0, 1)) - equal).abs() / equal).mean()
    return stage.w_recon * recon + stage.w_avg * average


def plain_forward(
    network: PCSR, lr_B3hw: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor | None]:
    """The mixed picture ``(B, Q, 3)`` and, of two classes or more, their probabilities."""
    B, _, h, w = lr_B3hw.shape
    feat_BDhw = network.backbone(lr_B3hw - network.mean[:, None, None])
    coord_Q2, cell_Q2 = coordinates(*size)
    coord_BQ2, cell_BQ2 = coord_Q2.repeat(B, 1, 1), cell_Q2.repeat(B, 1, 1)
    centre_B2hw = coordinates(h, w)[0].view(h, w, 2).permute(2, 0, 1).repeat(B, 1, 1, 1)
    lr_size_2 = torch.tensor([h, w], dtype=coord_Q2.dtype)
    near_BQD = _look_up(feat_BDhw, coord_BQ2, "nearest")
    offset_BQ2 = (coord_BQ2 - _look_up(centre_B2hw, coord_BQ2, "nearest")) * lr_size_2
    inputs_BQD4 = torch.cat([near_BQD, offset_BQ2, cell_BQ2 * lr_size_2], dim=-1)
    inputs_ND4 = inputs_BQD4.flatten(0, 1)
    base_BQ3 = _look_up(lr_B3hw, coord_BQ2, "bilinear")
    residuals_BQ3: list[Tensor] = [
        network.upsampler(j)(inputs_ND4).view(B, -1, 3) for j in range(network.num_classes)
    ]
    if network.classifier is None:
        return base_BQ3 + residuals_BQ3[0], None
    logits_NM: Tensor = network.classifier(inputs_ND4)
    prob_BQM = logits_NM.softmax(dim=-1).view(B, -1, network.num_classes)
    mixed_BQ3 = (torch.stack(residuals_BQ3, dim=2) * prob_BQM[..., None]).sum(dim=2)
    return base_BQ3 + mixed_BQ3, prob_BQM


def _look_up(values_BChw: Tensor, coord_BQ2: Tensor, mode: str) -> Tensor:
    """What lies at the coordinates, ``(B, Q, C)``."""
    found_BC1Q = F.grid_sample(
        values_BChw,
        coord_BQ2.flip(-1)[:, None],
        mode=mode,
        padding_mode="border",
        align_corners=False,
    )
    return found_BC1Q[:, :, 0].transpose(1, 2)

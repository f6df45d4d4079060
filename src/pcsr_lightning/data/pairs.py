"""From uint8 HR pixels to (LR, HR) pairs, on the device.

Every random choice depends on (seed, step, rank) only, so a resumed run sees the same batches.
"""

import math

import numpy as np
import torch
from torch import Tensor

from pcsr_lightning.data.batches import RawCrops, TrainBatch
from pcsr_lightning.data.degradation import (
    BicubicDegradation,
    Box,
    Degradation,
    DegradedPair,
)
from pcsr_lightning.data.transfer import to_device
from pcsr_lightning.data.whole_pictures import RawPicture, ValPicture
from pcsr_lightning.errors import ConfigError, DataError

_BICUBIC = BicubicDegradation()


class PairMaker:
    """Makes training batches of the windows of a step.

    Args:
        degradation: makes the LR pixels.
        lr_crop: side of an LR crop.
        seed: of the degradation's random choices, with the step and the rank.
    """

    def __init__(self, degradation: Degradation, lr_crop: int, seed: int) -> None:
        self.degradation, self.lr_crop, self.seed = degradation, lr_crop, seed

    def train_batch(self, raw: RawCrops) -> TrainBatch:
        """Degrades the crops of uint8 windows.

        Raises:
            ConfigError: the degradation gives something else than LR pixels.
        """
        assert raw.window_B3SS is not None
        window_B3SS = raw.window_B3SS.float().div_(255)
        plan, size = raw.plan, (self.lr_crop, self.lr_crop)
        margin, side = plan.margin, plan.largest
        seeds, crop = [self.seed, plan.step, plan.rank, 1], slice(margin, margin + side)
        if plan.mixed:
            draws = _generator(self.degradation, window_B3SS.device, seeds)
            sides = plan.side_B.tolist()
            lr_B3hw = self.degradation.mixed(window_B3SS, margin, sides, self.lr_crop, draws)
            _check(self.degradation, lr_B3hw, (len(window_B3SS), 3, *size))
            side_B = to_device(plan.side_B, window_B3SS.device)
            # As bytes: of mixed scales only a few HR pixels of each LR one are looked up.
            return TrainBatch(lr_B3hw, raw.window_B3SS[:, :, crop, crop].contiguous(), side_B)
        box = Box(margin, margin, side, side)
        lr_B3hw, clean_lr_B3hw = _degraded(self.degradation, window_B3SS, box, size, seeds)
        hr_B3SS = window_B3SS[:, :, crop, crop].contiguous()
        return TrainBatch(lr_B3hw, hr_B3SS, clean_lr_B3hw=clean_lr_B3hw)


def validation_pair(
    raw: RawPicture, scale: float, degradation: Degradation = _BICUBIC, seed: int = 0
) -> ValPicture:
    """Cuts HR to a multiple of the scale at the bottom right and degrades it.

    Raises:
        DataError: the picture is smaller than one LR pixel.
        ConfigError: the degradation gives something else than LR pixels.
    """
    # The small excess keeps 7.4 / 3.7 from being rounded down to 1.
    h, w = (math.floor(side / scale + 1e-6) for side in raw.hr_B3HW.shape[2:])
    if min(h, w) < 1:
        raise DataError(
            f"{raw.name}: this validation picture is smaller than one LR pixel at scale {scale:g}. "
            "Take it out of the validation folder."
        )
    H, W = round(h * scale), round(w * scale)
    hr = raw.hr_B3HW[:, :, :H, :W].contiguous().float().div_(255)
    lr, _ = _degraded(degradation, hr, Box(0, 0, H, W), (h, w), [seed, *raw.name.encode()])
    return ValPicture(lr, hr, raw.name)


def _degraded(
    degradation: Degradation,
    window_B3HW: Tensor,
    box: Box,
    size: tuple[int, int],
    seeds: list[int],
) -> DegradedPair:
    """The LR pixels, with random numbers that ``seeds`` decide, once their type is checked."""
    draws = _generator(degradation, window_B3HW.device, seeds)
    pair = degradation.pair(window_B3HW, box, size, draws)
    _check(degradation, pair.lr_B3hw, (len(window_B3HW), 3, *size))
    return pair


def _generator(degradation: Degradation, device: torch.device, seeds: list[int]) -> torch.Generator:
    seed = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator(device if degradation.draws_on_device else "cpu").manual_seed(seed)


def _check(degradation: Degradation, lr_B3hw: object, shape: tuple[int, ...]) -> None:
    expected = f"a torch.float32 tensor of shape {shape}"
    found = f"a {type(lr_B3hw).__name__}"
    if isinstance(lr_B3hw, Tensor):
        found = f"a {lr_B3hw.dtype} tensor of shape {tuple(lr_B3hw.shape)}"
    if found != expected:
        name = type(degradation).__name__
        raise ConfigError(f"data.degradation: {name} returned {found}, expected {expected}")

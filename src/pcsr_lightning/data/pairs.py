"""From uint8 HR pixels to (LR, HR) pairs, on the device: augmentation, scale, degradation.

Every random choice depends on (seed, step, rank) only, so a resumed run sees the same batches.
"""

import math

import numpy as np
import torch
from kornia.augmentation import RandomHorizontalFlip, RandomVerticalFlip
from torch import Tensor

from pcsr_lightning.data.batches import RawCrops, RawPicture, TrainBatch, ValPicture
from pcsr_lightning.data.degradation import BicubicDegradation, Box, Degradation
from pcsr_lightning.errors import ConfigError, DataError

_BICUBIC = BicubicDegradation()


class PairMaker:
    """Makes training batches and validation pairs of uint8 HR pixels.

    Args:
        degradation: makes the LR pixels.
        scale: (lowest, highest) scale of training; each batch draws one in between, uniformly
            (PCSR, Sec. 4.1: [2, 4] for multi-scale training).
        lr_crop: side of an LR crop.
        augment: flip and transpose crops at random (all eight ways alike).
        seed: of all random choices.
    """

    def __init__(
        self,
        degradation: Degradation,
        scale: tuple[float, float],
        lr_crop: int,
        augment: bool,
        seed: int,
    ) -> None:
        self.degradation = degradation
        self.scale, self.lr_crop, self.augment, self.seed = scale, lr_crop, augment, seed
        self.crop = round(lr_crop * scale[1])
        self.margin = math.ceil(degradation.margin * scale[1])
        self._flips = (RandomHorizontalFlip(p=0.5), RandomVerticalFlip(p=0.5))

    def train_batch(self, raw: RawCrops) -> TrainBatch:
        """Augments windows with their margins (which are symmetric), then cuts and degrades.

        Raises:
            ConfigError: the degradation gives something else than LR pixels.
        """
        # Contiguous first: channels-last would slow everything below down by half.
        window_B3HW = raw.window_BHWC.permute(0, 3, 1, 2).contiguous().float().div_(255)
        if self.augment:
            window_B3HW = self._augmented(window_B3HW, raw.step, raw.rank)
        # All ranks draw the same scale and place: a step waits for its slowest rank.
        draw = np.random.default_rng([self.seed, raw.step])
        side = round(self.lr_crop * draw.uniform(*self.scale))
        top, left = (self.margin + int(draw.integers(self.crop - side + 1)) for _ in range(2))
        box, size = Box(top, left, side, side), (self.lr_crop, self.lr_crop)
        seeds = [self.seed, raw.step, raw.rank, 1]
        lr_B3hw = _degraded(self.degradation, window_B3HW, box, size, seeds)
        hr_B3HW = window_B3HW[:, :, top : top + side, left : left + side].contiguous()
        return TrainBatch(lr_B3hw, hr_B3HW)

    def _augmented(self, window_B3HW: Tensor, step: int, rank: int) -> Tensor:
        seed = int(np.random.SeedSequence([self.seed, step, rank]).generate_state(1)[0])
        # kornia draws from the CPU's global generator: lend it a seed and put the state back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for flip in self._flips:
                window_B3HW = flip(window_B3HW)
            transpose_B = torch.rand(len(window_B3HW)) < 0.5
        transpose_B111 = transpose_B.to(window_B3HW.device)[:, None, None, None]
        return torch.where(transpose_B111, window_B3HW.transpose(2, 3).contiguous(), window_B3HW)


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
    lr = _degraded(degradation, hr, Box(0, 0, H, W), (h, w), [seed, *raw.name.encode()])
    return ValPicture(lr, hr, raw.name)


def _degraded(
    degradation: Degradation,
    window_B3HW: Tensor,
    box: Box,
    size: tuple[int, int],
    seeds: list[int],
) -> Tensor:
    """The LR pixels, with random numbers that ``seeds`` decide, once their type is checked."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)
    lr_B3hw = degradation(window_B3HW, box, size, torch.Generator().manual_seed(seed))
    expected = f"a torch.float32 tensor of shape {(len(window_B3HW), 3, *size)}"
    found = f"a {type(lr_B3hw).__name__}"
    if isinstance(lr_B3hw, Tensor):
        found = f"a {lr_B3hw.dtype} tensor of shape {tuple(lr_B3hw.shape)}"
    if found != expected:
        name = type(degradation).__name__
        raise ConfigError(f"data.degradation: {name} returned {found}, expected {expected}")
    return lr_B3hw

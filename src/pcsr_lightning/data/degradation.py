"""From HR pixels to (LR, HR) pairs, on the device: augmentation, scale, MATLAB-style bicubic.

Every random choice depends on (seed, step, rank) only, so a resumed run sees the same batches.
"""

import math

import numpy as np
import torch
from kornia.augmentation import RandomHorizontalFlip, RandomVerticalFlip
from torch import Tensor

from pcsr_lightning.data.batches import RawCrops, RawPicture, TrainBatch, ValPicture
from pcsr_lightning.errors import DataError
from pcsr_lightning.images import bicubic


class Degradation:
    """Makes training batches and validation pairs of uint8 HR pixels.

    Args:
        scale: (lowest, highest) scale of training; each batch draws one in between, uniformly
            (PCSR, Sec. 4.1: [2, 4] for multi-scale training).
        lr_crop: side of an LR crop.
        augment: flip and transpose crops at random (all eight ways alike).
        seed: of all random choices.
    """

    def __init__(self, scale: tuple[float, float], lr_crop: int, augment: bool, seed: int) -> None:
        self.scale, self.lr_crop, self.augment, self.seed = scale, lr_crop, augment, seed
        self.crop = round(lr_crop * scale[1])
        # The stretched kernel reaches 1.5 LR pixels (and half an HR pixel) beyond a crop.
        self.margin = math.ceil(2 * scale[1])
        self._flips = (RandomHorizontalFlip(p=0.5), RandomVerticalFlip(p=0.5))

    def train_batch(self, raw: RawCrops) -> TrainBatch:
        """Augments windows with their margins (which are symmetric), then cuts and degrades."""
        # Contiguous first: channels-last would slow everything below down by half.
        window_B3HW = raw.window_BHWC.permute(0, 3, 1, 2).contiguous().float().div_(255)
        if self.augment:
            window_B3HW = self._augmented(window_B3HW, raw.step, raw.rank)
        # All ranks draw the same scale and place: a step waits for its slowest rank.
        draw = np.random.default_rng([self.seed, raw.step])
        side = round(self.lr_crop * draw.uniform(*self.scale))
        top, left = (self.margin + int(draw.integers(self.crop - side + 1)) for _ in range(2))
        lr_B3hw = bicubic(
            window_B3HW, (self.lr_crop, self.lr_crop), self.lr_crop / side, (top, left)
        )
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


def validation_pair(raw: RawPicture, scale: float) -> ValPicture:
    """Cuts HR to a multiple of the scale at the bottom right and degrades it.

    Raises:
        DataError: the picture is smaller than one LR pixel.
    """
    # The small excess keeps 7.4 / 3.7 from being rounded down to 1.
    lr_size = [math.floor(side / scale + 1e-6) for side in raw.hr_B3HW.shape[2:]]
    if min(lr_size) < 1:
        raise DataError(
            f"{raw.name}: this validation picture is smaller than one LR pixel at scale {scale:g}. "
            "Take it out of the validation folder."
        )
    height, width = (round(side * scale) for side in lr_size)
    hr = raw.hr_B3HW[:, :, :height, :width].contiguous().float().div_(255)
    return ValPicture(bicubic(hr, (lr_size[0], lr_size[1])), hr, raw.name)

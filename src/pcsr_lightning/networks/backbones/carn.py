"""CARN-M (Ahn et al., ECCV 2018): cascading residual blocks with grouped convolutions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.networks.backbones.base import (
    DIV2K_MEAN,
    Backbone,
    DefaultSizes,
    pixel_shuffle_steps,
)
from pcsr_lightning.networks.modes import is_tracing


class EfficientResidual(nn.Module):
    """Two grouped 3x3 convolutions and a 1x1, added to the input, then ReLU."""

    def __init__(self, channels: int, group: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=group),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, groups=group),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + x)


class Merge(nn.Sequential):
    """The 1x1 convolution after a concatenation: no bias, batch norm, ReLU.

    In evaluation the norm is folded into the convolution: the same function, no slower, and with
    about half the rounding error where features are large.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self[0], self[1]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # Traced networks show their layers as published, so that the norm is counted.
        if self.training or is_tracing():
            return F.relu_(norm(conv(x)))
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = conv.weight * gain[:, None, None, None]
        return F.relu_(F.conv2d(x, weight, norm.bias - norm.running_mean * gain))


class Cascade(nn.Module, ABC):
    """Three units in a row; each merge sees the input and every unit's output so far."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.merges = nn.ModuleList(Merge(channels * (i + 2), channels) for i in range(3))

    @abstractmethod
    def unit(self, place: int, x: Tensor) -> Tensor:
        """What stands at ``place`` 0, 1 or 2 of the cascade."""

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for place, merge_1x1 in enumerate(self.merges):
            seen = torch.cat([seen, self.unit(place, x)], dim=1)
            x = merge_1x1(seen)
        return x


class Block(Cascade):
    """A cascade of one residual unit, used at all three places (the ``-M`` of CARN-M)."""

    def __init__(self, channels: int, group: int) -> None:
        super().__init__(channels)
        self.residual = EfficientResidual(channels, group)

    def unit(self, place: int, x: Tensor) -> Tensor:
        out: Tensor = self.residual(x)
        return out


class Body(Cascade):
    """The cascade of the three blocks."""

    def __init__(self, channels: int, group: int) -> None:
        super().__init__(channels)
        self.blocks = nn.ModuleList(Block(channels, group) for _ in range(3))

    def unit(self, place: int, x: Tensor) -> Tensor:
        out: Tensor = self.blocks[place](x)
        return out


class CARN(Backbone):
    """CARN-M up to its upsampling block.

    Args:
        nf: channels.
        group: groups of the 3x3 convolutions.
    """

    name: ClassVar[str] = "carn"
    # Sec. 4.1 and the published models.
    sizes: ClassVar[DefaultSizes] = DefaultSizes(
        heavy=(74, 74, 74, 74),
        light=(20, 20, 20),
        classifier=(10, 10),
        mean=DIV2K_MEAN,
        original={"nf": 64, "group": 4},
        width="nf",
        widths=(64, 52, 36),
    )

    def __init__(self, nf: int = 52, group: int = 4) -> None:
        super().__init__()
        self.args = {"nf": nf, "group": group}
        self.out_channels = nf
        self.group = group
        self.halo = 1 + 3 * 3 * 2
        self.entry = nn.Conv2d(3, nf, 3, padding=1)
        self.body = Body(nf, group)

    def forward(self, lr_B3hw: Tensor) -> Tensor:
        feat_BDhw: Tensor = self.body(self.entry(lr_B3hw))
        return feat_BDhw

    def make_tail(self, scale: int) -> nn.Module:
        nf = self.out_channels
        steps: list[nn.Module] = []
        for _ in range(pixel_shuffle_steps(self.name, scale)):
            steps += [
                nn.Conv2d(nf, 4 * nf, 3, padding=1, groups=self.group),
                nn.ReLU(inplace=True),
                nn.PixelShuffle(2),
            ]
        return nn.Sequential(*steps, nn.Conv2d(nf, 3, 3, padding=1))

"""SRResNet (Ledig et al., CVPR 2017) in the form without batch norm that ClassSR and PCSR use."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from pcsr_lightning.networks.backbones.base import (
    Backbone,
    DefaultSizes,
    pixel_shuffle_steps,
    scaled_kaiming_,
)

SLOPE = 0.1  # of the leaky ReLU after the first convolution and in the tail


class ResidualBlock(nn.Module):
    """3x3, ReLU, 3x3, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class SRResNet(Backbone):
    """SRResNet up to its upsampling steps.

    Args:
        nf: channels.
        blocks: residual blocks.
    """

    name: ClassVar[str] = "srresnet"
    # Sec. 4.1 and the published models.
    sizes: ClassVar[DefaultSizes] = DefaultSizes(
        heavy=(170, 170, 170, 170),
        light=(40, 40, 40),
        classifier=(20, 20),
        original={"nf": 64, "blocks": 16},
        width="nf",
        widths=(64, 52, 36),
    )
    adds_upsampled_input: ClassVar[bool] = True

    def __init__(self, nf: int = 58, blocks: int = 16) -> None:
        super().__init__()
        self.args = {"nf": nf, "blocks": blocks}
        self.out_channels = nf
        self.halo = 1 + 2 * blocks
        self.head = nn.Sequential(nn.Conv2d(3, nf, 3, padding=1), nn.LeakyReLU(SLOPE, inplace=True))
        self.trunk = nn.Sequential(*(ResidualBlock(nf) for _ in range(blocks)))
        scaled_kaiming_(self)

    def forward(self, lr_B3hw: Tensor) -> Tensor:
        feat_BDhw: Tensor = self.trunk(self.head(lr_B3hw))
        return feat_BDhw

    def make_tail(self, scale: int) -> nn.Module:
        nf = self.out_channels
        steps: list[nn.Module] = []
        for _ in range(pixel_shuffle_steps(self.name, scale)):
            steps += [
                nn.Conv2d(nf, 4 * nf, 3, padding=1),
                nn.PixelShuffle(2),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
        tail = nn.Sequential(
            *steps,
            nn.Conv2d(nf, nf, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(nf, 3, 3, padding=1),
        )
        scaled_kaiming_(tail)
        return tail

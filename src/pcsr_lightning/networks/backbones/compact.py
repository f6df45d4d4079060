"""The compact network of Real-ESRGAN (Wang et al., ICCVW 2021), ``SRVGGNetCompact`` there."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from pcsr_lightning.networks.backbones.base import Backbone


class Compact(Backbone):
    """3x3 convolutions, each with a PReLU of a slope for every channel.

    The original model adds the input, each pixel repeated, to the tail's output.

    Args:
        nf: channels (``num_feat``).
        blocks: convolutions after the first one (``num_conv``).
    """

    name: ClassVar[str] = "compact"
    adds_upsampled_input: ClassVar[bool] = True
    upsamples_nearest: ClassVar[bool] = True

    def __init__(self, nf: int = 64, blocks: int = 32) -> None:
        super().__init__()
        self.args = {"nf": nf, "blocks": blocks}
        self.out_channels = nf
        self.halo = 1 + blocks
        layers: list[nn.Module] = []
        for channels in (3, *[nf] * blocks):
            layers += [nn.Conv2d(channels, nf, 3, padding=1), nn.PReLU(nf)]
        self.body = nn.Sequential(*layers)

    def forward(self, lr_B3hw: Tensor) -> Tensor:
        feat_BDhw: Tensor = self.body(lr_B3hw)
        return feat_BDhw

    def make_tail(self, scale: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(self.out_channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)
        )

"""FSRCNN (Dong et al., ECCV 2016): shrink, map with few channels, expand."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks.backbones.base import Backbone, DefaultSizes, scaled_kaiming_


class FSRCNN(Backbone):
    """FSRCNN up to its expanding layer.

    Args:
        d: feature channels, also of the output.
        s: channels of the narrow mapping layers.
        m: number of 3x3 mapping layers.
    """

    name: ClassVar[str] = "fsrcnn"
    # Sec. 4.1 and the published models.
    sizes: ClassVar[DefaultSizes] = DefaultSizes(
        heavy=(58, 58, 58, 58),
        light=(10, 10, 10),
        classifier=(),
        original={"d": 56, "s": 12, "m": 4},
        width="d",
        widths=(56, 36, 16),
    )

    def __init__(self, d: int = 48, s: int = 12, m: int = 4) -> None:
        super().__init__()
        self.args = {"d": d, "s": s, "m": m}
        self.out_channels = d
        self.halo = 2 + m
        self.head = nn.Sequential(nn.Conv2d(3, d, 5, padding=2), nn.PReLU())
        self.shrink = nn.Sequential(nn.Conv2d(d, s, 1), nn.PReLU())
        self.mapping = nn.Sequential(*(nn.Conv2d(s, s, 3, padding=1) for _ in range(m)), nn.PReLU())
        self.expand = nn.Sequential(nn.Conv2d(s, d, 1), nn.PReLU())
        # Nothing here is a residual branch, so the weights start at full gain.
        scaled_kaiming_(self, gain=1.0)

    def forward(self, lr_B3hw: Tensor) -> Tensor:
        feat_BDhw: Tensor = self.expand(self.mapping(self.shrink(self.head(lr_B3hw))))
        return feat_BDhw

    def make_tail(self, scale: int) -> nn.Module:
        if not 2 <= scale <= 8:
            raise ConfigError(f"the original fsrcnn is made for scales 2 to 8, not {scale}")
        # output_padding makes the picture exactly `scale` times as large.
        tail = nn.ConvTranspose2d(
            self.out_channels, 3, 9, stride=scale, padding=(9 - scale + 1) // 2,
            output_padding=(9 - scale) % 2,
        )  # fmt: skip
        scaled_kaiming_(tail, gain=0.1)
        return tail

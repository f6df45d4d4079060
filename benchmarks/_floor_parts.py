"""The backbones that ``floor.py`` tries.

Legend: B batch, h w LR size, D feature channels, M classes, C channels inside.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.networks import Backbone
from pcsr_lightning.networks.backbones.base import scaled_kaiming_
from pcsr_lightning.networks.backbones.carn import CARN, Body
from pcsr_lightning.networks.backbones.fsrcnn import FSRCNN


class Folded(Backbone):
    """Works on 2 x 2 LR pixels at once: a quarter of the positions, features unfolded again.

    Args:
        body: from 12 channels to ``4 * D``, without changing the size.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, lr_B3hw: Tensor) -> Tensor:
        h, w = lr_B3hw.shape[-2:]
        even = F.pad(lr_B3hw, (0, w % 2, 0, h % 2), mode="replicate")
        unfolded = F.pixel_shuffle(self.body(F.pixel_unshuffle(even, 2)), 2)
        return unfolded[..., :h, :w]


class FoldedFSRCNN(Folded):
    """As FSRCNN, its first layer 3 x 3 (6 x 6 LR pixels) instead of 5 x 5."""

    name: ClassVar[str] = "fsrcnn-folded"
    sizes = FSRCNN.sizes

    def __init__(self, s: int = 16, m: int = 4, d: int = 48) -> None:
        body = FSRCNN(d, s, m)
        body.head[0] = nn.Conv2d(12, d, 3, padding=1)
        body.expand[0] = nn.Conv2d(s, 4 * d, 1)
        scaled_kaiming_(body.head, gain=1.0)
        scaled_kaiming_(body.expand, gain=1.0)
        super().__init__(body)


class FoldedCARN(Folded):
    """As CARN, of another width, and a 1 x 1 layer to the features."""

    name: ClassVar[str] = "carn-folded"
    sizes = CARN.sizes

    def __init__(self, nf: int = 72, group: int = 4, d: int = 52) -> None:
        super().__init__(
            nn.Sequential(nn.Conv2d(12, nf, 3, padding=1), Body(nf, group), nn.Conv2d(nf, 4 * d, 1))
        )


def early_and_deep(backbone: Backbone, lr_B3hw: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """CARN's features after some of its three blocks, and after all."""
    assert isinstance(backbone, CARN)
    x = seen = backbone.entry(lr_B3hw)
    after = []
    for place, merge_1x1 in enumerate(backbone.body.merges):
        seen = torch.cat([seen, backbone.body.unit(place, x)], dim=1)
        x = merge_1x1(seen)
        after.append(x)
    return after[blocks - 1], x

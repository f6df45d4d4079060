"""The backbones that ``floor.py`` tries.

Legend: B batch, h w LR size, D feature channels, M classes, C channels inside, E of a chain.
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


class WideConv2d(nn.Conv2d):
    """Trained as the sum of k x k, 1 x 1, identity, and 1 x 1 followed by k x k (RepVGG, ECBSR).

    All are linear and see the same input, so their weights add up to those of one convolution.
    """

    @classmethod
    def of(cls, conv: nn.Conv2d) -> WideConv2d:
        """A wide layer that starts from this one, whose chain starts at zero."""
        assert isinstance(conv.padding, tuple)
        k, groups = conv.kernel_size[0], conv.groups
        wide = cls(conv.in_channels, conv.out_channels, k, padding=conv.padding[0], groups=groups)
        wide.load_state_dict(conv.state_dict())
        outputs, inputs = conv.weight.shape[:2]
        wide.one = nn.Parameter(torch.zeros(outputs, inputs))
        wide.gain = nn.Parameter(torch.ones(outputs if outputs == conv.in_channels else 0))
        wide.first = nn.Parameter(torch.randn(2 * groups * inputs, inputs) * inputs**-0.5)
        wide.second = nn.Parameter(torch.zeros(outputs, 2 * inputs, k, k))
        return wide

    def narrow(self) -> Tensor:
        """The weight of the one convolution, as ``weight`` is shaped."""
        inputs, centre = self.weight.shape[1], self.kernel_size[0] // 2
        second = self.second.unflatten(0, (self.groups, -1))
        first = self.first.unflatten(0, (self.groups, -1))
        chain = torch.einsum("goekl,gei->goikl", second, first).flatten(0, 1)
        point = self.one
        if len(self.gain):
            own = torch.arange(len(self.gain), device=self.gain.device) % inputs
            point = point + self.gain[:, None] * F.one_hot(own, inputs)
        return self.weight + chain + F.pad(point[..., None, None], [centre] * 4)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.narrow(), self.bias)


def widen(module: nn.Module) -> None:
    """Makes all convolutions larger than 1 x 1 wide, in place."""
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.Conv2d) and part.kernel_size[0] > 1:
            module.set_submodule(name, WideConv2d.of(part))


def narrowed(module: nn.Module) -> dict[str, Tensor]:
    """The weights of the same network with plain convolutions."""
    state = dict(module.state_dict())
    for name, part in module.named_modules():
        if isinstance(part, WideConv2d):
            state[f"{name}.weight"] = part.narrow().detach()
            for extra in ("one", "gain", "first", "second"):
                del state[f"{name}.{extra}"]
    return state


class WideFSRCNN(FSRCNN):
    """FSRCNN with wide layers, for its first stage only."""

    name: ClassVar[str] = "fsrcnn-wide"

    def __init__(self, d: int = 48, s: int = 12, m: int = 4) -> None:
        super().__init__(d, s, m)
        widen(self)


class WideCARN(CARN):
    """CARN with wide layers, for its first stage only."""

    name: ClassVar[str] = "carn-wide"

    def __init__(self, nf: int = 52, group: int = 4) -> None:
        super().__init__(nf, group)
        widen(self)


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

"""BSRN (Li et al., CVPRW 2022): blueprint convolutions, feature distillation, two attentions.

Both attentions look at the whole picture (a strided pooling grid that starts at its corner, and
statistics over all of it), so BSRN must not be cut into tiles: ``halo`` is ``None``.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks.backbones.base import Backbone, DefaultSizes


class BlueprintConv(nn.Sequential):
    """A 1x1 convolution without bias, then a depthwise 3x3 with bias."""

    def __init__(
        self, channels_in: int, channels_out: int, stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.Conv2d(channels_out, channels_out, 3, stride, padding, groups=channels_out),
        )


class SpatialAttention(nn.Module):
    """Enhanced spatial attention: where to look, decided on a coarse grid of the picture."""

    # A strided 3x3 without padding and a 7x7 pooling need this many rows and columns of input.
    SMALLEST: ClassVar[int] = 15

    def __init__(self, channels: int) -> None:
        super().__init__()
        few = channels // 4
        self.narrow = nn.Conv2d(channels, few, 1)
        self.skip = nn.Conv2d(few, few, 1)
        self.stride = BlueprintConv(few, few, stride=2, padding=0)
        self.coarse = nn.Sequential(
            BlueprintConv(few, few),
            nn.GELU(),
            BlueprintConv(few, few),
            nn.GELU(),
            BlueprintConv(few, few),
        )
        self.widen = nn.Conv2d(few, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        narrow = self.narrow(x)
        grid = narrow
        if min(h, w) < self.SMALLEST:
            # Tiny pictures: repeat the edge, so that any size can be asked for.
            pad_h, pad_w = max(0, self.SMALLEST - h), max(0, self.SMALLEST - w)
            grid = F.pad(grid, (0, pad_w, 0, pad_h), mode="replicate")
        grid = F.max_pool2d(self.stride(grid), kernel_size=7, stride=3)
        grid = F.interpolate(self.coarse(grid), size=(h, w), mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.widen(grid + self.skip(narrow)))


class ContrastAttention(nn.Module):
    """Contrast-aware channel attention: standard deviation + mean of each channel weigh it."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        few = max(1, channels // reduction)
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, few, 1), nn.ReLU(inplace=True), nn.Conv2d(few, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        # The epsilon keeps the root's gradient finite on a constant channel.
        deviation = ((x - mean).square().mean(dim=(2, 3), keepdim=True) + 1e-12).sqrt()
        return x * torch.sigmoid(self.weigh(deviation + mean))


class DistillationBlock(nn.Module):
    """Three distilling steps, a last blueprint convolution, two attentions, and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.distil = nn.ModuleList(nn.Conv2d(channels, half, 1) for _ in range(3))
        self.refine = nn.ModuleList(BlueprintConv(channels, channels) for _ in range(3))
        self.last = BlueprintConv(channels, half)
        self.merge = nn.Conv2d(4 * half, channels, 1)
        self.spatial = SpatialAttention(channels)
        self.contrast = ContrastAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        rest, distilled = x, []
        for distil, refine in zip(self.distil, self.refine, strict=True):
            distilled.append(F.gelu(distil(rest)))
            rest = F.gelu(refine(rest) + rest)
        distilled.append(F.gelu(self.last(rest)))
        out: Tensor = self.contrast(self.spatial(self.merge(torch.cat(distilled, dim=1))))
        return out + x


class BSRN(Backbone):
    """BSRN up to its upsampling convolution.

    Args:
        nf: channels (a multiple of 4).
        blocks: distillation blocks.
    """

    name: ClassVar[str] = "bsrn"
    # The paper does not give the split between the parts; this one is chosen to meet its 198K
    # parameters and its cost beside the original's (appendix D).
    sizes: ClassVar[DefaultSizes] = DefaultSizes(
        heavy=(44, 44, 44, 44),
        light=(14, 14, 14),
        classifier=(10, 10),
        original={"nf": 64, "blocks": 8},
    )

    def __init__(self, nf: int = 48, blocks: int = 8) -> None:
        super().__init__()
        if nf % 4:
            raise ConfigError(f"bsrn halves and quarters its channels: nf={nf} is no multiple of 4")
        self.args = {"nf": nf, "blocks": blocks}
        self.out_channels = nf
        self.halo = None
        self.head = BlueprintConv(12, nf)
        self.blocks = nn.ModuleList(DistillationBlock(nf) for _ in range(blocks))
        self.merge = nn.Conv2d(nf * blocks, nf, 1)
        self.end = BlueprintConv(nf, nf)

    def forward(self, lr_B3hw: Tensor) -> Tensor:
        first = self.head(lr_B3hw.repeat(1, 4, 1, 1))
        x, outs = first, []
        for block in self.blocks:
            x = block(x)
            outs.append(x)
        feat_BDhw: Tensor = self.end(F.gelu(self.merge(torch.cat(outs, dim=1)))) + first
        return feat_BDhw

    def make_tail(self, scale: int) -> nn.Module:
        if scale < 1:
            raise ConfigError(f"original bsrn models need an integer scale from 1 up, not {scale}")
        return nn.Sequential(
            nn.Conv2d(self.out_channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)
        )

"""The original model: a backbone with its own upsampling tail, for one integer scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.networks.backbones import (
    Backbone,
    backbone_config,
    is_builtin,
    validate_backbone,
)
from pcsr_lightning.networks.backbones.probe import measure
from pcsr_lightning.networks.pcsr import bilinear_upsample

TAIL_HALO = 8
"""Largest halo in LR rows that a tail may add to its backbone's where images are tiled."""


class Original(nn.Module):
    """A network of one class: FSRCNN, CARN-M, SRResNet, BSRN and others as their authors made them.

    Args:
        backbone: makes the LR features.
        scale: an integer; the tail is made for it.
        mean: the RGB mean taken off the input and put back on the output, in [0, 1].
    """

    mean: Tensor
    num_classes: ClassVar[int] = 1
    """There is nothing to route."""
    trained_scales: tuple[float, float] | None = None
    """As of a :class:`PCSR`."""

    def __init__(
        self, backbone: Backbone, scale: int = 4, mean: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> None:
        super().__init__()
        validate_backbone(backbone)
        self.backbone = backbone
        self.scale = scale
        self.tail = backbone.make_tail(scale)
        if not is_builtin(type(backbone)):
            _check_tail(backbone, self.tail, scale)
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))

    def config(self) -> dict[str, Any]:
        """The architecture in plain values, as ``build_network`` takes it."""
        return {
            "kind": "original",
            "backbone": backbone_config(self.backbone),
            "scale": self.scale,
            "mean": [round(v, 6) for v in self.mean.tolist()],
        }

    def forward(self, lr_B3hw: Tensor) -> Tensor:
        """The upscaled image ``(B, 3, h * scale, w * scale)`` of one in [0, 1]."""
        mean = self.mean[:, None, None]
        x = lr_B3hw - mean
        sr_B3HW: Tensor = self.tail(self.backbone(x))
        if self.backbone.adds_upsampled_input:
            sr_B3HW = sr_B3HW + self._upsample(x, (sr_B3HW.shape[-2], sr_B3HW.shape[-1]))
        return sr_B3HW + mean

    def _upsample(self, x_B3hw: Tensor, size: tuple[int, int]) -> Tensor:
        if self.backbone.upsamples_nearest:
            return F.interpolate(x_B3hw, size=size, mode="nearest")
        return bilinear_upsample(x_B3hw, size)


def _check_tail(backbone: Backbone, tail: nn.Module, scale: int) -> None:
    """Measures a custom tail; if its receptive field is too large for tiles, disables them.

    Raises:
        ConfigError: its output is not ``scale`` times as large as the image.
    """
    what = f"the original {backbone.name} of x{scale}"
    found = measure(nn.Sequential(backbone, tail), what, scale=scale)
    if backbone.halo is None or found.halo is None or found.halo > backbone.halo + TAIL_HALO:
        backbone.halo = None

"""The original model: a backbone with its own upsampling tail, for one whole scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pcsr_lightning.networks.backbones import Backbone
from pcsr_lightning.networks.hub import HubModel
from pcsr_lightning.networks.pcsr import enlarge


class Original(HubModel):
    """What PCSR is compared with: FSRCNN, CARN-M, SRResNet or BSRN as their authors made them.

    Args:
        backbone: makes the LR features.
        scale: a whole number; the tail is made for it.
        mean: the RGB mean taken off the input and put back on the output, in [0, 1].
    """

    mean: Tensor

    def __init__(
        self, backbone: Backbone, scale: int = 4, mean: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.scale = scale
        self.tail = backbone.make_tail(scale)
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))

    def config(self) -> dict[str, Any]:
        """The architecture in plain values, as ``build_network`` takes it."""
        return {
            "kind": "original",
            "backbone": {"name": self.backbone.name, **self.backbone.args},
            "scale": self.scale,
            "mean": [round(v, 6) for v in self.mean.tolist()],
        }

    def forward(self, lr_B3hw: Tensor) -> Tensor:
        """The enlarged picture ``(B, 3, h * scale, w * scale)`` of one in [0, 1]."""
        mean = self.mean[:, None, None]
        x = lr_B3hw - mean
        sr_B3HW: Tensor = self.tail(self.backbone(x))
        if self.backbone.adds_enlarged_input:
            sr_B3HW = sr_B3HW + enlarge(x, (sr_B3HW.shape[-2], sr_B3HW.shape[-1]))
        return sr_B3HW + mean

"""What every backbone promises, and helpers that several of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError


class Backbone(nn.Module, ABC):
    """Turns an LR picture into LR features: ``(B, 3, h, w) -> (B, D, h, w)`` (Eq. 2, ``Z = B(X)``).

    Attributes:
        name: the key of this backbone in configs and model files.
        out_channels: ``D``.
        halo: how many LR rows (and columns) around a feature can change it; ``None`` when the
            whole picture can, in which case the picture must not be cut into tiles.
        args: the constructor's arguments, kept so that a model file can name its architecture.
    """

    name: ClassVar[str]
    out_channels: int
    halo: int | None
    args: dict[str, Any]

    @abstractmethod
    def forward(self, lr_B3hw: Tensor) -> Tensor:
        """Features ``(B, D, h, w)`` of a mean-free LR picture."""

    adds_enlarged_input: ClassVar[bool] = False
    """Whether the original model adds the bilinearly enlarged input to what its tail gives."""

    @abstractmethod
    def make_tail(self, scale: int) -> nn.Module:
        """The original model's own upsampling tail, ``(B, D, h, w) -> (B, 3, h*scale, w*scale)``.

        Raises:
            ConfigError: the original model is not defined at this scale.
        """


def pixel_shuffle_steps(name: str, scale: int) -> int:
    """How many x2 pixel-shuffle steps reach ``scale``: originals are made for 2, 4 and 8."""
    steps = {2: 1, 4: 2, 8: 3}.get(scale)
    if steps is None:
        raise ConfigError(
            f"the original {name} grows by doubling: its scale must be 2, 4 or 8, not {scale}"
        )
    return steps


@torch.no_grad()
def scaled_kaiming_(module: nn.Module, gain: float = 0.1) -> None:
    """He initialisation times ``gain``, biases zero: residual branches start close to nothing."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            part.weight.mul_(gain)
            if part.bias is not None:
                part.bias.zero_()

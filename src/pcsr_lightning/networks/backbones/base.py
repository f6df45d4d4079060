"""The base class of all backbones, and helpers that several of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


@dataclass(frozen=True)
class DefaultSizes:
    """Default sizes of upsamplers and classifier for a backbone; those of CARN by default.

    Attributes:
        heavy: hidden widths of the heaviest upsampler.
        light: of the lightest.
        classifier: hidden widths of the classifier.
        mean: the RGB mean taken off the input, in [0, 1].
        original: the constructor's arguments for the original model, where they differ.
        width: the argument of the constructor that is the network's width, for ClassSR and ARM.
        widths: its values in their sub-networks, widest first.
    """

    heavy: tuple[int, ...] = (74, 74, 74, 74)
    light: tuple[int, ...] = (20, 20, 20)
    classifier: tuple[int, ...] = (10, 10)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    original: Mapping[str, Any] | None = None
    width: str | None = None
    widths: tuple[int, ...] = ()


class Backbone(nn.Module, ABC):
    """Turns an LR picture into LR features: ``(B, 3, h, w) -> (B, D, h, w)`` (Eq. 2, ``Z = B(X)``).

    A subclass needs ``name``, a constructor and ``forward``; ``docs/add-a-backbone.md`` shows one.
    Everything else is measured or has a default, and may be set.

    Attributes:
        name: the key of this backbone in configs and model files.
        out_channels: ``D``. Measured unless the constructor sets it.
        halo: how many LR rows (and columns) around a feature can change it; ``None`` when the
            whole image can, in which case it must not be cut into tiles. Measured unless the
            constructor sets it, and checked if it does.
        args: the constructor's arguments in plain values, so that a model file can name its
            architecture. ``build_backbone`` sets them.
    """

    name: ClassVar[str]
    sizes: ClassVar[DefaultSizes] = DefaultSizes()
    out_channels: int
    halo: int | None
    args: dict[str, Any]

    @abstractmethod
    def forward(self, lr_B3hw: Tensor) -> Tensor:
        """Features ``(B, D, h, w)`` of a mean-free LR picture."""

    adds_upsampled_input: ClassVar[bool] = False
    """Whether the original model adds the upsampled input to its tail's output."""
    upsamples_nearest: ClassVar[bool] = False
    """Whether each pixel of that input is repeated; otherwise it is upsampled bilinearly."""

    def make_tail(self, scale: int) -> nn.Module:
        """The original model's own upsampling tail, ``(B, D, h, w) -> (B, 3, h*scale, w*scale)``.

        Used by ``stage=original`` only.

        Raises:
            ConfigError: the original model is not defined, at this scale or at all.
        """
        raise ConfigError(
            f"backbone {self.name} has no original model of x{scale}: {type(self).__name__} does "
            "not define make_tail(scale). PCSR's own stages (stage=1, 2, ...) do not need it"
        )


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
    """He initialisation times ``gain``, biases zero: residual branches start close to zero."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            part.weight.mul_(gain)
            if part.bias is not None:
                part.bias.zero_()

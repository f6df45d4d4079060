"""What networks share that choose a sub-network for each patch of a picture, as ClassSR and ARM do.

Legend: N patches, p side of a patch, M classes. Class 0 is the heaviest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks.backbones import Backbone, build_backbone
from pcsr_lightning.networks.original import Original

PATCH, STEP = 32, 28
"""Side in LR pixels of the patches of ClassSR and ARM, and the distance from one to the next."""


class PatchRouted(nn.Module, ABC):
    """An original network in several widths, of which each patch takes one.

    Args:
        widest: the original network.
        widths: of the sub-networks, widest first: values of the backbone's argument that
            ``sizes.width`` names.
        num_classes: ``M``.

    Raises:
        ConfigError: the widths do not fall from that of ``widest``, or there are fewer than two.
    """

    kind: ClassVar[str]
    """In configs and model files."""
    trained_scales: tuple[float, float] | None = None
    """As of a :class:`PCSR`."""

    def __init__(self, widest: Original, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.widths, self.num_classes = tuple(widths), num_classes
        own = width_of(widest.backbone)
        falling = list(widths) == sorted(set(widths), reverse=True)
        if len(widths) < 2 or not falling or widths[0] != own:
            raise ConfigError(
                f"backbone.widths={list(widths)}: expected two widths or more that fall from "
                f"{own}, the backbone's own, such as [{own},{max(1, own // 2)}]"
            )

    @property
    @abstractmethod
    def widest(self) -> Original:
        """The sub-network of class 0."""

    @abstractmethod
    def run_class(self, j: int, lr_N3pp: Tensor) -> Tensor:
        """Patches upscaled by the sub-network of class ``j``: ``(N, 3, p * scale, p * scale)``."""

    @abstractmethod
    def scores(self, lr_N3pp: Tensor) -> Tensor:
        """What the choice of a sub-network rests on, ``(N, M)``; the highest is chosen at k = 0."""

    @property
    def backbone(self) -> Backbone:
        """Of the widest sub-network."""
        return self.widest.backbone

    @property
    def mean(self) -> Tensor:
        """The RGB mean taken off the input and put back on the output."""
        return self.widest.mean

    @property
    def scale(self) -> int:
        """The only one it is made for."""
        return self.widest.scale

    def config(self) -> dict[str, Any]:
        """The architecture in plain values, as ``build_network`` takes it."""
        return {**self.widest.config(), "kind": self.kind, "widths": list(self.widths)}


def width_of(backbone: Backbone) -> int:
    """The argument of a backbone that is its width.

    Raises:
        ConfigError: the backbone does not say which that is.
    """
    width = backbone.args.get(backbone.sizes.width or "")
    if not isinstance(width, int):
        raise ConfigError(
            f"backbone {backbone.name} has no widths: its sizes.width must name "
            "an argument of its constructor"
        )
    return width


def at_width(widest: Original, width: int) -> Original:
    """An untrained original network that differs from ``widest`` in its width alone."""
    own = widest.backbone
    backbone = build_backbone(own.name, **{**own.args, str(own.sizes.width): width})
    return Original(backbone, widest.scale, widest.mean.tolist())

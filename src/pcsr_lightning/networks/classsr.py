"""ClassSR (Kong et al., CVPR 2021): a classifier sends each patch to one of three networks.

Facts from the paper and from github.com/Xiangtaokong/ClassSR.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from pcsr_lightning.networks.backbones.base import scaled_kaiming_
from pcsr_lightning.networks.original import Original
from pcsr_lightning.networks.patch_routed import PatchRouted, at_width


class PatchClassifier(nn.Sequential):
    """The logits of a patch's classes, ``(N, 3, p, p) -> (N, M)``; patches have 4 pixels or more.

    One number for each 4 x 4 pixels and channel, four 1 x 1 convolutions, the mean over the patch.
    """

    def __init__(self, num_classes: int, channels: int = 128) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=4)]
        for width in (channels, channels, channels, 32):
            layers += [nn.LeakyReLU(0.1), nn.Conv2d(channels, width, 1)]
        pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes))
        super().__init__(*layers, *pool)
        scaled_kaiming_(self)


class ClassSR(PatchRouted):
    """Independent networks of one architecture in several widths, and a classifier of patches.

    Args:
        widest: the original network; the others are made like it.
        widths: of all of them, widest first.
    """

    kind: ClassVar[str] = "classsr"

    def __init__(self, widest: Original, widths: Sequence[int]) -> None:
        super().__init__(widest, widths, len(widths))
        self.branches = nn.ModuleList([widest, *(at_width(widest, w) for w in widths[1:])])
        self.classifier = PatchClassifier(len(widths))

    @property
    def widest(self) -> Original:
        return self.branch(0)

    def branch(self, j: int) -> Original:
        """The network of class ``j``."""
        found = self.branches[j]
        assert isinstance(found, Original)
        return found

    def run_class(self, j: int, lr_N3pp: Tensor) -> Tensor:
        sr_N3PP: Tensor = self.branch(j)(lr_N3pp)
        return sr_N3PP

    def scores(self, lr_N3pp: Tensor) -> Tensor:
        logits_NM: Tensor = self.classifier(lr_N3pp)
        return logits_NM

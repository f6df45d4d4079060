"""A picture kept so that any routing of it costs a selection, the refinement and the PSNR.

Legend: B batch (patches of a picture, or the picture), H W HR size, M classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.pairs import Pair, shaved_border
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.inference import Analysis, Flops, RoutingConfig
from pcsr_lightning.networks import PCSR
from pcsr_lightning.routing.refine import refine


@dataclass(frozen=True)
class Routed:
    """A routing of a picture.

    Attributes:
        psnr: dB, RGB, as :func:`score_pair` would find it.
        flops: what the routing costs.
        counts_M: HR pixels of each class, heaviest first.
    """

    psnr: float
    flops: Flops
    counts_M: tuple[int, ...]


class DensePicture:
    """What every class makes of every pixel of a picture, and the classifier's verdict.

    Args:
        model: with two classes or more.
        pair: the picture.
        scale: (vertical, horizontal).
        layout: where patches lie; whole without.
    """

    def __init__(
        self, model: PCSR, pair: Pair, scale: tuple[float, float], layout: Layout | None = None
    ) -> None:
        device = model.mean.device
        lr_13hw = pair.lr_13hw.to(device)
        self.layout, self.border, self.scale = layout, shaved_border(scale), scale
        self.hr_13HW = pair.hr_13HW
        self.lr_size = (lr_13hw.shape[-2], lr_13hw.shape[-1])
        self.num_classes = model.num_classes
        with torch.inference_mode():
            parts = [lr_13hw] if layout is None else layout.cut(lr_13hw)
            self.parts = [Analysis.of(model, lr_B3hw, scale=scale) for lr_B3hw in parts]
            self.sr_MB3HW = [every_class(part) for part in self.parts]

    def route(self, routing: RoutingConfig) -> Routed:
        """A routing's PSNR and cost.

        Raises:
            ConfigError: the routing names a class that the network does not have.
        """
        out = []
        gmacs = gflops = 0.0
        counts_M = torch.zeros(self.num_classes, dtype=torch.long)
        with torch.inference_mode():
            for part, sr_MB3HW in zip(self.parts, self.sr_MB3HW, strict=True):
                class_BHW = part.assign(routing)
                out.append(select(sr_MB3HW, class_BHW, routing.refines(self.scale)))
                flops = part.flops(routing, class_BHW)
                gmacs, gflops = gmacs + flops.gmacs, gflops + flops.gflops_published
                counts_M += torch.bincount(class_BHW.flatten(), minlength=self.num_classes).cpu()
            image = out[0] if self.layout is None else self.layout.join(out, self.lr_size)
            decibels = psnr(image, self.hr_13HW.to(image.device), self.border)
        return Routed(decibels, Flops(gmacs, gflops), tuple(counts_M.tolist()))


def every_class(analysis: Analysis) -> Tensor:
    """What each class makes of all pixels, ``(M, B, 3, H, W)``, neither refined nor clamped."""
    return torch.stack([analysis.dense(j) for j in range(analysis.model.num_classes)])


def select(sr_MB3HW: Tensor, class_BHW: Tensor, refined: bool) -> Tensor:
    """Each pixel as its class makes it, ``(B, 3, H, W)`` in [0, 1].

    Args:
        sr_MB3HW: what each class makes of all pixels, neither refined nor clamped.
        class_BHW: their classes.
        refined: whether light pixels beside heavy ones are smoothed (Sec. 3.4).
    """
    sr_B3HW = sr_MB3HW[0].clone()
    for j in range(1, len(sr_MB3HW)):
        sr_B3HW = torch.where((class_BHW == j)[:, None], sr_MB3HW[j], sr_B3HW)
    if refined:
        sr_B3HW = refine(sr_B3HW, class_BHW, len(sr_MB3HW))
    return sr_B3HW.clamp(0, 1)

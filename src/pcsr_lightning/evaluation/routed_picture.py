"""A picture of a data set under any number of routings, the network run on it once.

Legend: B batch (patches of a picture, or the picture), H W HR size, M classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.pairs import Pair, shaved_border
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.inference import Flops, RoutingConfig, Session
from pcsr_lightning.networks import PCSR


@dataclass(frozen=True)
class Routed:
    """A routing of a picture.

    Attributes:
        psnr: dB, RGB, as :func:`~pcsr_lightning.evaluation.benchmark.measure_pair` would find it.
        flops: what the routing costs.
        counts_M: HR pixels of each class, heaviest first.
    """

    psnr: float
    flops: Flops
    counts_M: tuple[int, ...]


class RoutedPicture:
    """Sessions of a picture, or of its patches, in which every class has computed every pixel.

    A routing is then a selection, the refinement and the PSNR.

    Args:
        model: with two classes or more.
        pair: the picture.
        scale: (vertical, horizontal).
        layout: where patches lie; the full image without.
        offload: keeps it all in main memory, whatever device the model is on.
    """

    def __init__(
        self,
        model: PCSR,
        pair: Pair,
        scale: tuple[float, float],
        layout: Layout | None = None,
        offload: bool = False,
    ) -> None:
        lr_13hw = pair.lr_13hw.to(model.mean.device)
        self._layout, self._border, self._hr_13HW = layout, shaved_border(scale), pair.hr_13HW
        self._lr_size = (lr_13hw.shape[-2], lr_13hw.shape[-1])
        self.sessions = []
        for lr_B3hw in [lr_13hw] if layout is None else layout.cut(lr_13hw):
            session = Session(model, lr_B3hw, scale)
            session.offload() if offload else session.compute_every_class()
            self.sessions.append(session)

    def route(self, routing: RoutingConfig) -> Routed:
        """A routing's PSNR and cost.

        Raises:
            ConfigError: the routing names a class that the network does not have.
        """
        runs = [session.run(routing) for session in self.sessions]
        with torch.inference_mode():
            images = [run.image for run in runs]
            layout = self._layout
            image = images[0] if layout is None else layout.join(images, self._lr_size)
            decibels = psnr(image, self._hr_13HW.to(image.device), self._border)
        classes = torch.cat([run.assignment.flatten() for run in runs])
        counts_M = torch.bincount(classes, minlength=self.sessions[0].num_classes)
        flops = Flops(
            sum(run.flops.gmacs for run in runs), sum(run.flops.gflops_published for run in runs)
        )
        return Routed(decibels, flops, tuple(counts_M.tolist()))

"""The measurements of a model card: PSNR and cost on the test sets for many routings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pcsr_lightning.evaluation import Measurement, benchmark, sweep
from pcsr_lightning.evaluation.curves import psnr_flops
from pcsr_lightning.evaluation.figures import save_figure
from pcsr_lightning.evaluation.tables import scale_text
from pcsr_lightning.inference import RoutingConfig
from pcsr_lightning.networks import PCSR, Original

SWEEP = (2.0, 1.0, 0.5, 0.25, 0.0, -0.1, -0.25, -0.5)
"""The values of ``k`` on a model's curve, from cheap to costly."""
LABELLED = (2.0, 1.0, 0.5, 0.0, -0.5)
"""Those with their names in the figure, where all would cover each other."""
COST = "proportional"
"""The cost under which ``k`` means what it means in the paper's tables."""


def measure(
    model: PCSR | Original, name: str, folders: Sequence[Path], scales: Sequence[float]
) -> list[Measurement]:
    """A model on every test set at every scale, with every routing of its curve: means.

    The tables' protocol at integer scales, full images at others.

    Args:
        model: an original is measured at its own scale.
        name: of the model.
        folders: one a test set.
        scales: of the upscaling.

    Raises:
        PCSRError: a folder cannot be used.
    """
    found: list[Measurement] = []
    for folder in folders:
        for scale in scales:
            protocol = "published" if scale == int(scale) else "whole"
            if isinstance(model, Original):
                found.append(benchmark(model, folder, scale, None, protocol).mean)
            else:
                found += sweep(model, folder, routings(model), scale, protocol).points
    # Where the folders were on this machine is of no use to anybody else.
    return [replace(m, model=name, data_root=m.dataset) for m in found]


def routings(model: PCSR) -> list[RoutingConfig]:
    """Those on a card: the curve over ``k``, adaptive, and each class alone."""
    over_k = [RoutingConfig(k=k, cost=COST) for k in SWEEP]
    alone = [RoutingConfig(fixed_class=j, cost=COST) for j in range(model.num_classes)]
    return [*over_k, RoutingConfig("adaptive", cost=COST), *alone]


def draw_curve(measured: Sequence[Measurement], path: Path) -> None:
    """PSNR against GFLOPs over ``k`` on one test set, into a PNG file.

    Args:
        measured: of one data set and scale.
        path: of the file.
    """
    first = measured[0]
    figure = psnr_flops(
        [m for m in measured if m.routing_name != "adaptive"],
        name=first.model,
        title=f"{first.dataset}, x{scale_text(first.scale)}",
        label=lambda m: m.routing_name if m.k is None or m.k in LABELLED else "",
    )
    save_figure(figure, path)

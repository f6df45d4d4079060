"""What a model's card tells of its quality: PSNR and cost on the test sets, routing by routing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pcsr_lightning.evaluation import benchmark, sweep
from pcsr_lightning.evaluation.figures import save_figure
from pcsr_lightning.evaluation.plots import OurPoint, psnr_flops
from pcsr_lightning.evaluation.report import routing_words
from pcsr_lightning.inference import Routing
from pcsr_lightning.networks import PCSR, Original

SWEEP = (2.0, 1.0, 0.5, 0.25, 0.0, -0.1, -0.25, -0.5)
"""The values of ``k`` on a model's curve, from cheap to costly."""
LABELLED = (2.0, 1.0, 0.5, 0.0, -0.5)
"""Those with their names in the figure, where all would cover each other."""
COST = "proportional"
"""The cost under which ``k`` means what it means in the paper's tables."""


@dataclass(frozen=True)
class Measured:
    """Means over one test set.

    Attributes:
        dataset: the folder's name.
        scale: of the enlargement.
        routing: in words, such as ``k = 0``; ``original`` for a model that has none.
        k: where the routing has one.
        psnr: dB, RGB, by the tables' protocol.
        bicubic_psnr: the same of bicubic enlargement.
        gmacs: 10^9 multiply-adds really executed.
        gflops_published: 10^9 operations by the published count.
        share: of the pixels, by class, heaviest first.
    """

    dataset: str
    scale: float
    routing: str
    k: float | None
    psnr: float
    bicubic_psnr: float
    gmacs: float
    gflops_published: float
    share: tuple[float, ...]


def measure(
    model: PCSR | Original, folders: Sequence[Path], scales: Sequence[float]
) -> list[Measured]:
    """A model on every test set at every scale, with every routing of its curve.

    The tables' protocol at whole scales, whole pictures at others.

    Args:
        model: an original is measured at its own scale.
        folders: one a test set.
        scales: of the enlargement.

    Raises:
        PCSRError: a folder cannot be used.
    """
    found = []
    for folder in folders:
        for scale in scales:
            protocol = "published" if scale == int(scale) else "whole"
            if isinstance(model, Original):
                found.append(_original(model, folder, scale, protocol))
            else:
                found += _routed(model, folder, scale, protocol)
    return found


def _original(model: Original, folder: Path, scale: float, protocol: str) -> Measured:
    mean = benchmark(model, folder, scale, None, protocol).mean
    return Measured(
        folder.name, scale, "original", None, mean.psnr, mean.bicubic_psnr, mean.gmacs,
        mean.gflops_published, mean.share,
    )  # fmt: skip


def _routed(model: PCSR, folder: Path, scale: float, protocol: str) -> list[Measured]:
    ways = [Routing(k=k, cost=COST) for k in SWEEP] + [Routing(mode="adaptive", cost=COST)]
    ways += [Routing(mode=str(j), cost=COST) for j in range(model.num_classes)]
    found = sweep(model, folder, ways, scale, protocol)
    return [
        Measured(
            folder.name, scale, routing_words(p.routing),
            p.routing.k if p.routing.mode == "k" else None,
            p.psnr, found.bicubic_psnr, p.gmacs, p.gflops_published, p.share,
        )
        for p in found.points
    ]  # fmt: skip


def draw_curve(found: Sequence[Measured], name: str, path: Path) -> None:
    """PSNR against GFLOPs over ``k`` on one test set, into a PNG file.

    Args:
        found: of one data set and scale.
        name: of the model.
        path: of the file.
    """
    points = [
        OurPoint(m.gflops_published, m.psnr, m.routing if m.k is None or m.k in LABELLED else "")
        for m in found
        if m.routing != "adaptive"
    ]
    title = f"{found[0].dataset}, x{found[0].scale:g}"
    save_figure(psnr_flops(points, name=name, title=title), path)

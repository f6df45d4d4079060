"""One row of a table measured on one set of pictures, as the paper measures it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pcsr_lightning.evaluation.benchmark import benchmark
from pcsr_lightning.evaluation.measurement import Measurement, mean
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.pairs import Pair, Protocol, scale_pair, shaved_border
from pcsr_lightning.evaluation.published import PublishedPoint
from pcsr_lightning.evaluation.reader import Reader
from pcsr_lightning.evaluation.reproduction.rows import MAX, protocol_of
from pcsr_lightning.evaluation.sweep import Sweep, sweep
from pcsr_lightning.evaluation.target import KForTarget, find_k
from pcsr_lightning.inference import RoutingConfig, Session
from pcsr_lightning.networks import PCSR, AnyNetwork
from pcsr_lightning.routing import CostRule
from pcsr_lightning.routing.refine import refine

ALL_HEAVY = -1000.0
"""A ``k`` at which every pixel takes the heaviest class, and the classifier is paid for."""


@dataclass(frozen=True)
class Measured:
    """What a model gave.

    Attributes:
        mean: over the pictures.
        found: the ``k``, where one was searched.
        sweep: its curve, and the oracle's.
    """

    mean: Measurement
    found: KForTarget | None = None
    sweep: Sweep | None = None

    @property
    def remark(self) -> str:
        """How its pixels found their classes."""
        if self.mean.routing is None:
            return ""
        if self.found is None:
            return self.mean.routing.description
        nearness = "for" if self.found.reached else "is nearest to"
        return f"k = {self.found.k:.4g} {nearness} {self.found.target:.2f} dB"


class Measurer:
    """Measures rows, and searches no ``k`` twice."""

    def __init__(self) -> None:
        self._found: dict[tuple[PCSR, Path, float, Protocol, int | None, int], KForTarget] = {}

    def measure(
        self,
        model: AnyNetwork,
        point: PublishedPoint,
        folder: Path,
        target: float | None,
        curve: Sequence[float] = (),
        oracle: bool = False,
    ) -> Measured:
        """Measures one row on one set.

        Args:
            model: on its device.
            point: the row, and how it is measured.
            folder: the pictures, cut as the paper's.
            target: the PSNR for which ``k`` is searched; ``k = 0`` without.
            curve: values of ``k`` that are measured too.
            oracle: measures also the best choice of classes.
        """
        protocol = protocol_of(point)
        routed = _routed(model)
        k, found = 0.0, None
        if point.model.endswith(MAX):
            k = ALL_HEAVY
        elif routed is not None and target is not None:
            found = self._search(routed, point, folder, target)
            k = found.k
        # The cost of Eq. 9 as the published code has it: published values of k mean the same.
        routing = RoutingConfig(k=k, cost=CostRule.PROPORTIONAL)
        if point.heavy_neighbours is not None and isinstance(model, PCSR):
            return Measured(refined_mean(model, folder, point, routing), found)
        average = benchmark(
            model, folder, point.scale, routing, protocol, progress=True,
            patch_size=point.patch_size,
        ).mean  # fmt: skip
        swept = None
        whole = protocol is Protocol.PUBLISHED and not point.model.endswith(MAX)
        if routed is not None and whole:
            routings = [routing, *(routing.replace(k=value) for value in curve)]
            if len(routings) > 1 or oracle:
                swept = sweep(
                    routed, folder, routings, point.scale, protocol, progress=True, oracle=oracle
                )
        return Measured(average, found, swept)

    def all_heavy(self, model: AnyNetwork, point: PublishedPoint, folder: Path) -> float:
        """The PSNR of a model of which every pixel takes the heaviest class."""
        return benchmark(
            model, folder, point.scale, RoutingConfig(fixed_class=0), protocol_of(point),
            progress=True, patch_size=point.patch_size,
        ).mean.psnr  # fmt: skip

    def reaches(
        self, model: AnyNetwork, point: PublishedPoint, folder: Path, target: float
    ) -> bool:
        """Whether a ``k`` gives a model this PSNR."""
        routed = _routed(model)
        return routed is not None and self._search(routed, point, folder, target).reached

    def _search(
        self, model: PCSR, point: PublishedPoint, folder: Path, target: float
    ) -> KForTarget:
        protocol = protocol_of(point)
        key = (model, folder, target, protocol, point.patch_size, point.scale)
        if key not in self._found:
            routing = RoutingConfig(cost=CostRule.PROPORTIONAL)
            self._found[key] = find_k(
                model, folder, target, point.scale, routing, protocol, point.patch_size,
                progress=True,
            )  # fmt: skip
        return self._found[key]


def _routed(model: AnyNetwork) -> PCSR | None:
    """The model, if it has classes to choose from."""
    return model if isinstance(model, PCSR) and model.num_classes > 1 else None


def refined_mean(
    model: PCSR, folder: Path, point: PublishedPoint, routing: RoutingConfig
) -> Measurement:
    """PSNR and cost where refinement takes another number of heavy neighbours (appendix, Table 3).

    Args:
        model: on its device.
        folder: the pictures.
        point: says how many neighbours, and the scale.
        routing: its ``k``.
    """
    scale = scale_pair(point.scale)
    neighbours = point.heavy_neighbours
    assert neighbours is not None

    def measure(name: str, pair: Pair) -> Measurement:
        session = Session(model, pair.lr_13hw.to(model.mean.device), scale)
        result = session.run(routing.replace(refine=False))
        # Refined before it is clamped, as everywhere.
        rows = slice(0, session.size[0])
        sr_13HW = session.class_images.pick(rows, result.assignment)
        sr_13HW = refine(sr_13HW, result.assignment, model.num_classes, neighbours)
        hr_13HW = pair.hr_13HW.to(sr_13HW.device)
        quality = psnr(sr_13HW, hr_13HW, shaved_border(scale))
        return Measurement(routing=routing, scale=scale).of_result(result, name=name, psnr=quality)

    with torch.inference_mode():
        pictures = Reader(folder, scale, Protocol.PUBLISHED).each(measure, progress=True)
    return mean(pictures)

"""A picture of a data set under any number of routings, the network run on it once.

Legend: B batch (patches of a picture, or the picture), h w LR size, H W HR size, n HR rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.metrics import ComparedRows, decibels, psnr
from pcsr_lightning.evaluation.pairs import Pair, shaved_border
from pcsr_lightning.evaluation.patches import Layout, PatchRows, upscale_patches
from pcsr_lightning.evaluation.routed_errors import RoutedErrors
from pcsr_lightning.inference import RoutingConfig, Session, upscale_routings
from pcsr_lightning.inference.upscale_routings import RoutedStrip
from pcsr_lightning.networks import PCSR, PatchRouted
from pcsr_lightning.routing.by_k import k_range
from pcsr_lightning.routing.config import CostRule
from pcsr_lightning.routing.cost import PictureMacs, class_costs

Look = Callable[[Tensor, PictureMacs], None]
"""Takes the classifier's output of pixels, ``(B, M, n, W)``, and what their picture costs."""


class RoutedPicture:
    """A picture on which every class computes every pixel; a routing is then a selection.

    Where each pixel finds its class by itself, full images go by in strips, and patches in batches:
    nothing of them is kept. Other rules need a session, which keeps every class's picture.

    Args:
        model: with two classes or more.
        pair: the picture.
        scale: (vertical, horizontal).
        layout: where patches lie; the full image without.
    """

    def __init__(
        self,
        model: PCSR,
        pair: Pair,
        scale: tuple[float, float],
        layout: Layout | None = None,
    ) -> None:
        self._model, self._scale, self._layout = model, scale, layout
        self._border, self._truth_13HW = shaved_border(scale), pair.truth_13HW
        self._lr_13hw = pair.lr_13hw.to(model.mean.device)

    @cached_property
    def session(self) -> Session:
        """Of the full image."""
        return self._session(self._lr_13hw)

    def _session(self, lr_B3hw: Tensor) -> Session:
        session = Session(self._model, lr_B3hw, self._scale)
        session.compute_every_class()
        return session

    def measure(self, setups: Sequence[Measurement]) -> list[Measurement]:
        """PSNR and cost of the routings that the setups name, added to each.

        Raises:
            ConfigError: one names a class that the network does not have.
        """
        return self._measure(setups, None)[0]

    def measure_with_range(
        self, setups: Sequence[Measurement], cost: CostRule
    ) -> tuple[list[Measurement], tuple[float, float]]:
        """Likewise, and :func:`~pcsr_lightning.routing.by_k.k_range` of the picture.

        Args:
            setups: as above.
            cost: of the classes, as ``k`` sees it.
        """
        return self._measure(setups, cost)

    def _measure(
        self, setups: Sequence[Measurement], cost: CostRule | None
    ) -> tuple[list[Measurement], tuple[float, float]]:
        routings = [setup.routing or RoutingConfig() for setup in setups]
        ranges: list[tuple[float, float]] = []

        def look(logits_BMHW: Tensor, macs: PictureMacs) -> None:
            if cost is not None:
                ranges.append(k_range(logits_BMHW, class_costs(macs.branches_M, cost)))

        if self._layout is not None:
            measured = self._of_patches(self._layout, setups, routings, look)
        elif any(routing.rule.whole_picture for routing in routings):
            measured = [self._selected(setup, r) for setup, r in zip(setups, routings, strict=True)]
            look(self.session.logits, self.session.macs)
        else:
            measured = self._streamed(setups, routings, look)
        lows, highs = zip(*ranges, strict=True) if ranges else ((0.0,), (0.0,))
        return measured, (min(lows), max(highs))

    def _of_patches(
        self,
        layout: Layout,
        setups: Sequence[Measurement],
        routings: Sequence[RoutingConfig],
        look: Look,
    ) -> list[Measurement]:
        compared = [ComparedRows(self._truth_13HW, self._border) for _ in setups]
        lr_size = (self._lr_13hw.shape[-2], self._lr_13hw.shape[-1])
        rows = [PatchRows(layout, lr_size, each.put) for each in compared]
        for lr_N3pp in layout.cut(self._lr_13hw):
            session = self._session(lr_N3pp)
            for each, routing in zip(rows, routings, strict=True):
                each.add(session.run(routing))
            look(session.logits, session.macs)
        return [
            setup.of_cost(each.flops, each.shares, psnr=picture.decibels)
            for setup, each, picture in zip(setups, rows, compared, strict=True)
        ]

    def _streamed(
        self,
        setups: Sequence[Measurement],
        routings: Sequence[RoutingConfig],
        look: Look,
    ) -> list[Measurement]:
        sizes = zip(self._truth_13HW.shape[-2:], self._lr_13hw.shape[-2:], strict=True)
        scale = [hr / lr for hr, lr in sizes]  # as rounding has left it
        refines = [routing.refines(scale) for routing in routings]
        errors = RoutedErrors(self._truth_13HW, self._border, refines)

        def compare(strip: RoutedStrip) -> None:
            look(strip.logits_1MnW, strip.cost)
            errors.add(strip.classes, strip.sr_3MnW)

        done = upscale_routings(self._model, self._lr_13hw, self._scale, routings, compare)
        return [
            setup.of_cost(each.flops, each.shares, psnr=decibels(total, errors.values))
            for setup, each, total in zip(setups, done, errors.totals, strict=True)
        ]

    def _selected(self, setup: Measurement, routing: RoutingConfig) -> Measurement:
        result = self.session.run(routing)
        truth_13HW = self._truth_13HW.to(result.image.device)
        with torch.inference_mode():
            return setup.of_result(result, psnr=psnr(result.image, truth_13HW, self._border))


class PatchRoutedPicture:
    """A picture under any number of routings of its patches; each is upscaled anew.

    Arguments are those of :class:`RoutedPicture`.
    """

    def __init__(
        self,
        model: PatchRouted,
        pair: Pair,
        scale: tuple[float, float],
        layout: Layout | None = None,
    ) -> None:
        self._model, self._pair, self._scale, self._layout = model, pair, scale, layout

    def measure(self, setups: Sequence[Measurement]) -> list[Measurement]:
        """As :meth:`RoutedPicture.measure`."""
        return [self._measure(setup) for setup in setups]

    def _measure(self, setup: Measurement) -> Measurement:
        device, routing = self._model.mean.device, setup.routing or RoutingConfig()
        lr_13hw, truth_13HW = self._pair.lr_13hw.to(device), self._pair.truth_13HW.to(device)
        result = upscale_patches(self._model, lr_13hw, self._scale, routing, self._layout, bits=8)
        border = shaved_border(self._scale)
        return setup.of_result(result, psnr=psnr(result.image, truth_13HW, border))


def routed_picture(
    model: PCSR | PatchRouted, pair: Pair, scale: tuple[float, float], layout: Layout | None = None
) -> RoutedPicture | PatchRoutedPicture:
    """The one of the two that fits the model."""
    if isinstance(model, PatchRouted):
        return PatchRoutedPicture(model, pair, scale, layout)
    return RoutedPicture(model, pair, scale, layout)

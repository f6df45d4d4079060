"""How good a classifier could be: the classes that the ground truth would choose.

Legend: M classes, H W HR size. Class 0 is the heaviest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.measurement import Measurement, OracleCost
from pcsr_lightning.evaluation.metrics import decibels
from pcsr_lightning.evaluation.pairs import Pair, Protocol, shaved_border
from pcsr_lightning.images.comparison import eight_bit, shave
from pcsr_lightning.images.picture import floats
from pcsr_lightning.inference import (
    Execution,
    Flops,
    RoutingConfig,
    class_colours,
    upscale_by,
    upscale_routings,
)
from pcsr_lightning.inference.engine import class_counts
from pcsr_lightning.inference.flops import model_macs
from pcsr_lightning.inference.input_rows import InputRows
from pcsr_lightning.inference.upscale_routings import RoutedStrip
from pcsr_lightning.inference.upscaling import make_engine
from pcsr_lightning.networks import PCSR
from pcsr_lightning.routing import RoutingPolicy, make_policy
from pcsr_lightning.routing.adm import CHUNK
from pcsr_lightning.routing.oracle import assign_by_error, picked

FULL_COLOUR = 32.0
"""A root mean square difference of so many of 255 levels has a regret map's full colour."""
_LUMA = (0.299, 0.587, 0.114)


def check_oracle(protocol: Protocol) -> None:
    """Refuses an oracle of pictures that are cut into patches.

    Raises:
        ConfigError: as it says.
    """
    if protocol in (Protocol.PATCHES, Protocol.OVERLAPPED):
        raise ConfigError(
            f"oracle=true chooses among the classes of full images, not of patches: use "
            f"protocol={Protocol.FULL_IMAGE} or {Protocol.PUBLISHED}, not {protocol}"
        )


class Choice(NamedTuple):
    """Classes of a picture's pixels, ``(H, W)``, uint8, and what they cost."""

    class_HW: Tensor
    flops: Flops
    shares: tuple[float, ...]


class Oracle:
    """The upper bound of every classifier for one picture and these upsamplers.

    Errors are those that PSNR counts: squared differences of pixels that are clamped and rounded
    to 8 bit, summed over RGB. Pixels of the shaved border count nothing and take the lightest
    class. Costs are the paper's count of operations, with the classifier's.

    Refinement is off: it mixes a pixel with its neighbours, whatever their classes, so no choice
    of single pixels would be the best. A bound and what it bounds are both without it.

    Of an HR pixel ``8 * M`` bytes are kept, and ``4 * M`` more while an oracle chooses.

    Args:
        model: with two classes or more; has every class compute every pixel.
        pair: the picture and its ground truth.
        scale: (vertical, horizontal).

    Attributes:
        error_MHW: each class's error at each pixel, whole numbers.
    """

    def __init__(self, model: PCSR, pair: Pair, scale: tuple[float, float]) -> None:
        self._model, self._scale, self._truth_13HW = model, scale, pair.truth_13HW
        self._lr_13hw = lr_13hw = pair.lr_13hw.to(model.mean.device)
        lr_size, size = ((x.shape[-2], x.shape[-1]) for x in pair)
        self._macs = model_macs(model)
        self._cost = self._macs.of_picture(lr_size, size)
        self._engine = make_engine(model, InputRows(lr_13hw.float()), size, Execution())
        self._border = border = shaved_border(scale)
        self.error_MHW = lr_13hw.new_empty(model.num_classes, *size, dtype=torch.float32)
        self._logits_MHW = torch.empty_like(self.error_MHW)
        top = 0

        def keep(strip: RoutedStrip) -> None:
            nonlocal top
            rows = slice(top, top + strip.sr_3MnW.shape[2])
            truth_31nW = eight_bit(self._truth_13HW[0, :, None, rows].to(lr_13hw.device))
            self.error_MHW[:, rows] = (eight_bit(strip.sr_3MnW) - truth_31nW).square_().sum(dim=0)
            self._logits_MHW[:, rows] = strip.logits_1MnW[0]
            top = rows.stop

        every_class = [RoutingConfig(fixed_class=j) for j in range(model.num_classes)]
        upscale_routings(model, lr_13hw, scale, every_class, keep)
        for rest in (slice(None, border), slice(-border, None)):
            self.error_MHW[:, rest] = 0
            self.error_MHW[:, :, rest] = 0

    def at_any_cost(self) -> Choice:
        """Each pixel by the class with the smallest error; of equals, the lightest."""
        return self._best(math.inf)

    def at_cost_of(self, routing: RoutingConfig) -> Choice:
        """The smallest error among choices that cost at most what a routing of this picture does.

        With two classes exactly that. With more, upgrades are paid for by falling gain for their
        cost, which is within one pixel's upgrade of the smallest error; and where the routing does
        better than that, the routing itself is the answer.
        """
        routed = self.routed(routing)
        limit = self._price(routed.class_HW)
        if routing.fixed_class is not None:  # no classifier has to be paid
            limit -= routed.class_HW.numel() * self._macs.plain.classifier
        found = self._best(limit)
        if self._price(found.class_HW) > limit or self._total(found) > self._total(routed):
            return routed
        return found

    def routed(self, routing: RoutingConfig) -> Choice:
        """The classes that a routing of this picture chooses."""
        routing = routing.replace(refine=False)
        if routing.rule.whole_picture:
            result = upscale_by(self._model, self._lr_13hw, routing, scale=self._scale, bits=8)
            return Choice(result.assignment[0], result.flops, result.shares)
        policy = make_policy(routing, self._cost)
        if policy.fixed_class is not None:
            shape, device = tuple(self.error_MHW.shape[1:]), self.error_MHW.device
            return self._counted(policy.assign_constant(shape, device), policy)
        rows = torch.split(self._logits_MHW, max(1, CHUNK // self._logits_MHW.shape[2]), dim=1)
        classes = torch.cat([policy.assign_pixels(logits_MnW[None])[0] for logits_MnW in rows])
        return self._counted(classes, policy)

    def decibels(self, choice: Choice) -> float:
        """PSNR of a choice."""
        compared_13HW = shave(self._truth_13HW, self._border)
        return decibels(self._total(choice), compared_13HW.numel())

    def measure(self, setup: Measurement, cost: OracleCost) -> Measurement:
        """PSNR and cost of the oracle, added to what is measured.

        Args:
            setup: names the routing.
            cost: that of the routing, or any.
        """
        routing = setup.routing or RoutingConfig()
        found = self.at_cost_of(routing) if cost is OracleCost.SAME else self.at_any_cost()
        return self._measured(found, setup, oracle=cost)

    def sweep(self, routings: Sequence[RoutingConfig]) -> list[Measurement]:
        """A curve: at the cost of each routing, then at any."""
        setups = [Measurement(routing=routing) for routing in routings]
        at_costs = [self.measure(setup, OracleCost.SAME) for setup in setups]
        return [*at_costs, self.measure(setups[0], OracleCost.ANY)]

    def measure_unrefined(self, setup: Measurement) -> Measurement:
        """PSNR and cost of the routing that ``setup`` names, without refinement."""
        return self._measured(self.routed(setup.routing or RoutingConfig()), setup)

    def regret(self, routing: RoutingConfig) -> tuple[Tensor, Tensor]:
        """By how much a routing's error exceeds the oracle's at its cost, at each pixel.

        Below 0 where the routing took a better class, for which the oracle does not pay. The sum
        is what the classifier loses.

        Returns:
            ``(H, W)``, whole numbers; and the routing's class less the oracle's, above 0 where it
            was lighter.
        """
        own_HW, bound_HW = self.routed(routing).class_HW, self.at_cost_of(routing).class_HW
        regret_HW = picked(self.error_MHW, own_HW) - picked(self.error_MHW, bound_HW)
        return regret_HW, own_HW.int() - bound_HW.int()

    def regret_map(self, routing: RoutingConfig) -> Tensor:
        """:meth:`regret` in colours over the ground truth's luminance, ``(3, H, W)`` in [0, 1].

        Red: the routing's class is lighter than the oracle's. Blue: heavier, often for a larger
        error. The colour is full where their errors differ by 32 levels in the root mean square.
        """
        regret_HW, lighter_HW = self.regret(routing)
        strength_HW = ((regret_HW.abs() / 3).sqrt() / FULL_COLOUR).clamp(max=1)
        red_3, blue_3 = class_colours(2).to(regret_HW)
        truth_3HW = floats(self._truth_13HW[0].to(regret_HW.device))
        weights_311 = truth_3HW.new_tensor(_LUMA)[:, None, None]
        grey_1HW = 0.25 + 0.5 * (truth_3HW * weights_311).sum(dim=0, keepdim=True)
        colour_3HW = torch.where(lighter_HW > 0, red_3[:, None, None], blue_3[:, None, None])
        return (1 - strength_HW) * grey_1HW + strength_HW * colour_3HW

    def _best(self, limit: float) -> Choice:
        """By the ground truth; the cost is that of a classifier that had chosen them."""
        prices_M = self._macs.plain.upsamplers
        class_1HW = assign_by_error(self.error_MHW[None], prices_M, limit)
        return self._counted(class_1HW[0], make_policy(RoutingConfig(k=0), self._cost))

    def _counted(self, class_HW: Tensor, policy: RoutingPolicy) -> Choice:
        done = self._engine.counted(policy, class_HW[None])
        flops = done.flops(self._macs, self._lr_13hw[0, 0].numel(), policy)
        return Choice(class_HW, flops, done.shares)

    def _price(self, class_HW: Tensor) -> float:
        prices_M = self._macs.plain.upsamplers
        counts_M = class_counts(class_HW, len(prices_M))
        return math.fsum(count * price for count, price in zip(counts_M, prices_M, strict=True))

    def _total(self, choice: Choice) -> float:
        return float(picked(self.error_MHW, choice.class_HW).sum(dtype=torch.float64))

    def _measured(self, choice: Choice, setup: Measurement, **what: Any) -> Measurement:
        routing = (setup.routing or RoutingConfig()).replace(refine=False)
        psnr = self.decibels(choice)
        return setup.of_cost(choice.flops, choice.shares, psnr=psnr, routing=routing, **what)

"""How good a classifier could be: the classes that the ground truth would choose.

Legend: M classes, H W HR size. Class 0 is the heaviest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.measurement import Measurement, OracleCost
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.pairs import Protocol
from pcsr_lightning.images.comparison import eight_bit
from pcsr_lightning.images.picture import floats
from pcsr_lightning.inference import RoutingConfig, Session, UpscaleResult, class_colours
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


class Oracle:
    """The upper bound of every classifier for one picture and these upsamplers.

    Errors are those that PSNR counts: squared differences of pixels that are clamped and rounded
    to 8 bit, summed over RGB. Pixels of the shaved border count nothing and take the lightest
    class. Costs are the paper's count of operations, with the classifier's.

    Refinement is off: it mixes a pixel with its neighbours, whatever their classes, so no choice
    of single pixels would be the best. A bound and what it bounds are both without it.

    Args:
        session: of a single picture; has every class compute every pixel.
        hr_13HW: the ground truth, in [0, 1] or bytes.
        border: pixels that are left out of the comparison on every side.

    Attributes:
        error_MHW: each class's error at each pixel, whole numbers.
    """

    def __init__(self, session: Session, hr_13HW: Tensor, border: int) -> None:
        session.compute_every_class()
        self._session, self._border = session, border
        self._hr_13HW = floats(hr_13HW.to(session.lr_B3hw.device))
        with torch.inference_mode():
            sr_M3HW = session.class_images.image_MB3HW[:, 0]
            difference_M3HW = eight_bit(sr_M3HW) - eight_bit(self._hr_13HW)
            error_MHW = difference_M3HW.square().sum(dim=1)
            compared_HW = torch.zeros_like(error_MHW[0], dtype=torch.bool)
            H, W = session.size
            compared_HW[border : H - border, border : W - border] = True
            self.error_MHW = error_MHW.masked_fill(~compared_HW, 0)

    def at_any_cost(self) -> UpscaleResult:
        """Each pixel by the class with the smallest error; of equals, the lightest."""
        return self._run(math.inf)

    def at_cost_of(self, routing: RoutingConfig) -> UpscaleResult:
        """The smallest error among choices that cost at most what a routing of this picture does.

        With two classes exactly that. With more, upgrades are paid for by falling gain for their
        cost, which is within one pixel's upgrade of the smallest error; and where the routing does
        better than that, the routing itself is the answer.
        """
        routed = self._session.run(routing.replace(refine=False))
        parts, own_HW = self._session.branch_macs, routed.assignment[0]
        limit = self._cost(own_HW)
        if routing.fixed_class is not None:  # no classifier has to be paid
            limit -= own_HW.numel() * parts.classifier
        found = self._run(limit)
        found_HW = found.assignment[0]
        if self._cost(found_HW) > limit or self._total(found_HW) > self._total(own_HW):
            return routed
        return found

    def measure(self, setup: Measurement, cost: OracleCost) -> Measurement:
        """PSNR and cost of the oracle, added to what is measured.

        Args:
            setup: names the routing.
            cost: that of the routing, or any.
        """
        routing = (setup.routing or RoutingConfig()).replace(refine=False)
        same = cost is OracleCost.SAME
        result = self.at_cost_of(routing) if same else self.at_any_cost()
        return self._measured(result, setup, routing=routing, oracle=cost)

    def sweep(self, routings: Sequence[RoutingConfig]) -> list[Measurement]:
        """A curve: at the cost of each routing, then at any."""
        setups = [Measurement(routing=routing) for routing in routings]
        at_costs = [self.measure(setup, OracleCost.SAME) for setup in setups]
        return [*at_costs, self.measure(setups[0], OracleCost.ANY)]

    def measure_unrefined(self, setup: Measurement) -> Measurement:
        """PSNR and cost of the routing that ``setup`` names, without refinement."""
        routing = (setup.routing or RoutingConfig()).replace(refine=False)
        return self._measured(self._session.run(routing), setup, routing=routing)

    def regret(self, routing: RoutingConfig) -> tuple[Tensor, Tensor]:
        """By how much a routing's error exceeds the oracle's at its cost, at each pixel.

        Below 0 where the routing took a better class, for which the oracle does not pay. The sum
        is what the classifier loses.

        Returns:
            ``(H, W)``, whole numbers; and the routing's class less the oracle's, above 0 where it
            was lighter.
        """
        own_HW = self._session.assign(routing)[0]
        bound_HW = self.at_cost_of(routing).assignment[0]
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
        weights_311 = self._hr_13HW.new_tensor(_LUMA)[:, None, None]
        grey_1HW = 0.25 + 0.5 * (self._hr_13HW[0] * weights_311).sum(dim=0, keepdim=True)
        colour_3HW = torch.where(lighter_HW > 0, red_3[:, None, None], blue_3[:, None, None])
        return (1 - strength_HW) * grey_1HW + strength_HW * colour_3HW

    def _run(self, limit: float) -> UpscaleResult:
        prices_M = self._session.branch_macs.upsamplers
        return self._session.run_classes(assign_by_error(self.error_MHW[None], prices_M, limit))

    def _cost(self, class_HW: Tensor) -> float:
        prices_M = self._session.branch_macs.upsamplers
        counts_M = torch.bincount(class_HW.flatten(), minlength=len(prices_M)).tolist()
        return math.fsum(count * price for count, price in zip(counts_M, prices_M, strict=True))

    def _total(self, class_HW: Tensor) -> float:
        return float(picked(self.error_MHW, class_HW).sum(dtype=torch.float64))

    def _measured(self, result: UpscaleResult, setup: Measurement, **what: Any) -> Measurement:
        quality = psnr(result.image, self._hr_13HW, self._border)
        return setup.of_result(result, psnr=quality, **what)

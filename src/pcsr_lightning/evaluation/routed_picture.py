"""A picture of a data set under any number of routings, the network run on it once.

Legend: B batch (patches of a picture, or the picture), h w LR size, H W HR size.
"""

from __future__ import annotations

from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.oracle import Oracle
from pcsr_lightning.evaluation.pairs import Pair, shaved_border
from pcsr_lightning.evaluation.patches import Layout, join_results
from pcsr_lightning.inference import RoutingConfig, Session
from pcsr_lightning.networks import PCSR


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

    def measure(self, setup: Measurement) -> Measurement:
        """PSNR and cost of the routing that ``setup`` names, added to it.

        Raises:
            ConfigError: it names a class that the network does not have.
        """
        routing = setup.routing or RoutingConfig()
        runs = [session.run(routing) for session in self.sessions]
        result = join_results(runs, self._layout, self._lr_size)
        hr_13HW = self._hr_13HW.to(result.image.device)
        return setup.of_result(result, psnr=psnr(result.image, hr_13HW, self._border))

    def oracle(self) -> Oracle:
        """The upper bound of every classifier; only for a picture that is not cut into patches."""
        assert self._layout is None
        return Oracle(self.sessions[0], self._hr_13HW, self._border)

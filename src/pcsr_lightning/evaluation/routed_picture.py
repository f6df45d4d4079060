"""A picture of a data set under any number of routings, the network run on it once.

Legend: B batch (patches of a picture, or the picture), h w LR size, H W HR size.
"""

from __future__ import annotations

from pcsr_lightning.evaluation.measurement import Measurement
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.oracle import Oracle
from pcsr_lightning.evaluation.pairs import Pair, shaved_border
from pcsr_lightning.evaluation.patches import Layout, join_results, upscale_patches
from pcsr_lightning.inference import RoutingConfig, Session
from pcsr_lightning.networks import PCSR, PatchRouted


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

    def measure(self, setup: Measurement) -> Measurement:
        """As :meth:`RoutedPicture.measure`."""
        device, routing = self._model.mean.device, setup.routing or RoutingConfig()
        lr_13hw, hr_13HW = self._pair.lr_13hw.to(device), self._pair.hr_13HW.to(device)
        result = upscale_patches(self._model, lr_13hw, self._scale, routing, self._layout)
        border = shaved_border(self._scale)
        return setup.of_result(result, psnr=psnr(result.image, hr_13HW, border))


def routed_picture(
    model: PCSR | PatchRouted, pair: Pair, scale: tuple[float, float], layout: Layout | None = None
) -> RoutedPicture | PatchRoutedPicture:
    """The one of the two that fits the model."""
    if isinstance(model, PatchRouted):
        return PatchRoutedPicture(model, pair, scale, layout)
    return RoutedPicture(model, pair, scale, layout)

"""``stage=original``: the plain model that PCSR is compared with."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference import original_flops
from pcsr_lightning.networks import Original, reparameterize, wider_backbone
from pcsr_lightning.training.losses import reconstruction
from pcsr_lightning.training.modules.base import Prediction, SRStage
from pcsr_lightning.training.modules.batches import TrainBatch, as_float, common_size


class OriginalStage(SRStage):
    """Trains a backbone with its own tail on the reconstruction loss.

    Args:
        network: an original model.
        name: of the stage.
        reparameterized: as of :class:`FirstStage`.
        options: further arguments of :class:`SRStage`.
    """

    network: Original
    network_class = Original

    def __init__(
        self,
        network: Original,
        *,
        name: str = "original",
        reparameterized: bool = False,
        **options: Any,
    ) -> None:
        if reparameterized:
            reparameterize(network.backbone)
        super().__init__(network, name=name, **options)

    def losses(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        size = common_size(batch, "an original model")
        return reconstruction(self.loss, self.network(batch.lr_B3hw), as_float(batch.hr_B3HW), size)

    def prepare_capture(self) -> None:
        # Captured as it is; but of other backbones nobody knows whether they can be.
        if wider_backbone(self.network.backbone) is None:
            raise ConfigError(f"backbone {self.network.backbone.name} may not be fit for it")

    def predict(self, lr_B3hw: Tensor, size: tuple[int, int]) -> Prediction:
        cost = original_flops(self.network, lr_B3hw[:, 0].numel())
        return Prediction(self.network(lr_B3hw), gmacs=cost.gmacs)

    def trained_parts(self) -> dict[str, nn.Module]:
        return {"backbone": self.network.backbone, "tail": self.network.tail}

"""``stage=original``: the plain model that PCSR is compared with."""

from __future__ import annotations

from torch import Tensor, nn

from pcsr_lightning.networks import Original
from pcsr_lightning.training.losses import reconstruction_loss
from pcsr_lightning.training.modules.base import Restored, SRStage, TrainBatch


class OriginalStage(SRStage):
    """Trains a backbone with its own tail on the reconstruction loss."""

    network: Original

    def loss(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return reconstruction_loss(self.network(batch.lr_B3hw), batch.hr_B3HW, self.recon), {}

    def restore(self, lr_B3hw: Tensor, size: tuple[int, int]) -> Restored:
        return Restored(self.network(lr_B3hw))

    def trained_parts(self) -> dict[str, nn.Module]:
        return {"backbone": self.network.backbone, "tail": self.network.tail}

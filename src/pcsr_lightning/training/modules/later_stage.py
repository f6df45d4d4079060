"""``stage=2``, ``3``, ...: the next upsampler and the classifier (Sec. 3.3)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference import Session
from pcsr_lightning.networks import PCSR
from pcsr_lightning.routing import RoutingConfig
from pcsr_lightning.training.losses import average_loss, reconstruction
from pcsr_lightning.training.modules.base import Prediction
from pcsr_lightning.training.modules.batches import TrainBatch
from pcsr_lightning.training.modules.pcsr_stage import PCSRStage


class LaterStage(PCSRStage):
    """Trains ``{U_j, C}`` on ``w_recon * L_recon + w_avg * L_avg`` (Eq. 8), all else frozen.

    Args:
        network: a PCSR with at least two upsamplers.
        name: of the stage; ``None`` for its number.
        w_recon: weight of the reconstruction loss.
        w_avg: weight of the average loss.
        options: further arguments of :class:`PCSRStage`.

    Raises:
        ConfigError: a value out of range, or a network of one upsampler.
    """

    def __init__(
        self,
        network: PCSR,
        *,
        name: str | None = None,
        w_recon: float = 1000.0,
        w_avg: float = 3.0,
        **options: Any,
    ) -> None:
        if network.num_classes < 2:
            raise ConfigError("a later stage needs at least two upsamplers")
        super().__init__(network, name=name or str(network.num_classes), **options)
        for key, weight in (("w_recon", w_recon), ("w_avg", w_avg)):
            if not 0 <= weight < math.inf:
                raise ConfigError(f"stage.{key}={weight}: must be a finite number of at least 0")
        self.w_recon, self.w_avg = w_recon, w_avg

    def losses(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        size = (batch.hr_B3HW.shape[-2], batch.hr_B3HW.shape[-1])
        queries = self.queries_of_step(batch)
        out, target_B3Q = self.query(batch, queries)
        whole = size if queries is None else None
        recon, parts = reconstruction(self.loss, out.mixed(), target_B3Q, whole)
        assert out.logits_BMQ is not None
        average = average_loss(out.logits_BMQ, self.sum_over_ranks)
        parts = {**parts, "recon": recon, "avg": average}
        return self.w_recon * recon + self.w_avg * average, parts

    def predict(self, lr_B3hw: Tensor, size: tuple[int, int]) -> Prediction:
        """Routed at ``k = 0`` in full precision, refined where the scale wants it."""
        with torch.autocast(lr_B3hw.device.type, enabled=False):
            result = Session(self.network, lr_B3hw, size=size).run(RoutingConfig(k=0.0))
        return Prediction(result.image, result.assignment, result.flops.gmacs)

    def trained_parts(self) -> dict[str, nn.Module]:
        last = self.network.num_classes - 1
        assert self.network.classifier is not None
        return {
            f"upsampler {last}": self.network.upsampler(last),
            "classifier": self.network.classifier,
        }

    def frozen_parts(self) -> dict[str, nn.Module]:
        earlier = range(self.network.num_classes - 1)
        return {
            "backbone": self.network.backbone,
            **{f"upsampler {j}": self.network.upsampler(j) for j in earlier},
        }

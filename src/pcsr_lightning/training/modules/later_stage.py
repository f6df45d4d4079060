"""``stage=2``, ``3``, ...: the next upsampler and the classifier (Sec. 3.3)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import PCSR, bilinear_upsample
from pcsr_lightning.routing import RoutingConfig
from pcsr_lightning.routing.by_k import assign_by_k
from pcsr_lightning.routing.refine import refine
from pcsr_lightning.training.losses import average_loss
from pcsr_lightning.training.modules.base import Prediction, TrainBatch
from pcsr_lightning.training.modules.pcsr_stage import PCSRStage, at_queries


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
        queries_Q = self.draw_queries(size)
        out = self.network(batch.lr_B3hw, size, queries_Q)
        recon = self.loss(out.mixed(), at_queries(batch.hr_B3HW, queries_Q))
        average = average_loss(out.logits_BMQ, self.sum_over_ranks)
        return self.w_recon * recon + self.w_avg * average, {"recon": recon, "avg": average}

    def predict(self, lr_B3hw: Tensor, size: tuple[int, int]) -> Prediction:
        """Routed at ``k = 0``, refined where the scale wants it.

        All classes are computed and one is kept: simple, and quick enough for validation pictures.
        """
        network = self.network
        grid = network.grid((lr_B3hw.shape[-2], lr_B3hw.shape[-1]), size)
        feat_BDhw = network.features(lr_B3hw)
        logits_BMHW = network.logits(feat_BDhw, grid)
        costs_M = torch.ones(network.num_classes)
        class_BHW = assign_by_k(logits_BMHW, costs_M, k=0.0)
        residual = torch.zeros_like(logits_BMHW[:, :1]).expand(-1, 3, -1, -1)
        for j in range(network.num_classes):
            chosen_B1HW = (class_BHW == j)[:, None]
            residual = torch.where(chosen_B1HW, network.residual(feat_BDhw, grid, j), residual)
            share = chosen_B1HW.float().mean()
            self.log(f"val/share_{j}", share, batch_size=1, sync_dist=True)
        rough = bilinear_upsample(lr_B3hw, size) + residual
        (h, w), (H, W) = grid.lr_size, size
        if RoutingConfig().refines((H / h, W / w)):
            rough = refine(rough, class_BHW, network.num_classes)
        return Prediction(rough, class_BHW)

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

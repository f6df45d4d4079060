"""``stage=classsr_branches`` and ``stage=classsr``: the networks of ClassSR, then its classifier.

Legend: B crops of a batch, M classes, heaviest first, H W HR size.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.patches import upscale_padded
from pcsr_lightning.inference import RoutingConfig, original_flops
from pcsr_lightning.networks import ClassSR
from pcsr_lightning.training.losses import average_loss, class_loss, reconstruction
from pcsr_lightning.training.modules.base import Prediction, SRStage
from pcsr_lightning.training.modules.batches import TrainBatch, as_float, common_size


class ClassSRBranches(SRStage):
    """Trains each network on the crops of its difficulty, with the reconstruction loss.

    Difficulty is the error of bicubic upscaling, and each batch is divided into equal parts, the
    hardest for the widest network. As published, the whole training set is divided once, by the
    PSNR of an SRResNet. Validation measures the widest network.

    Args:
        network: a ClassSR.
        name: of the stage.
        options: further arguments of :class:`SRStage`.
    """

    network: ClassSR
    network_class: ClassVar[type[nn.Module]] = ClassSR

    def __init__(self, network: ClassSR, *, name: str = "classsr_branches", **options: Any) -> None:
        super().__init__(network, name=name, **options)

    def losses(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        size, M = common_size(batch, "ClassSR"), self.network.num_classes
        if len(batch.lr_B3hw) < M:
            raise ConfigError(
                f"data.batch_size={len(batch.lr_B3hw)}: each of the {M} networks needs a crop"
            )
        lr_B3hw, hr_B3HW = batch.lr_B3hw, as_float(batch.hr_B3HW)
        total, parts = lr_B3hw.new_zeros(()), {}
        for j, crops in enumerate(by_difficulty(lr_B3hw, hr_B3HW).tensor_split(M)):
            sr_B3HW = self.network.run_class(j, lr_B3hw[crops])
            loss, _ = reconstruction(self.loss, sr_B3HW, hr_B3HW[crops], size)
            total, parts[f"recon_{j}"] = total + loss, loss
        return total, parts

    def predict(self, lr_B3hw: Tensor, size: tuple[int, int]) -> Prediction:
        cost = original_flops(self.network.widest, lr_B3hw[:, 0].numel())
        return Prediction(self.network.run_class(0, lr_B3hw), gmacs=cost.gmacs)

    def trained_parts(self) -> dict[str, nn.Module]:
        return branches(self.network)

    def frozen_parts(self) -> dict[str, nn.Module]:
        return {"classifier": self.network.classifier}


class ClassSRStage(SRStage):
    """Trains the classifier on ``w_recon * L1 + w_class * L_class + w_avg * L_average``.

    The picture in the first loss is the networks' mean, weighted by the classifier's
    probabilities. The weights are those of the published code. Validation sends each patch to its
    most probable network.

    Args:
        network: a ClassSR whose networks are trained.
        name: of the stage.
        w_recon: weight of the reconstruction loss.
        w_class: weight of the class loss.
        w_avg: weight of the average loss.
        train_branches: also trains the networks, as the paper does at the end.
        options: further arguments of :class:`SRStage`.
    """

    network: ClassSR
    network_class: ClassVar[type[nn.Module]] = ClassSR

    def __init__(
        self,
        network: ClassSR,
        *,
        name: str = "classsr",
        w_recon: float = 1000.0,
        w_class: float = 0.5,
        w_avg: float = 3.0,
        train_branches: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(network, name=name, **options)
        self.w_recon, self.w_class, self.w_avg = w_recon, w_class, w_avg
        self.train_branches = train_branches

    def losses(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        size, M = common_size(batch, "ClassSR"), self.network.num_classes
        logits_BM = self.network.scores(batch.lr_B3hw)
        p_BM = logits_BM.softmax(dim=1, dtype=torch.float32)
        images = [self.network.run_class(j, batch.lr_B3hw) for j in range(M)]
        sr_B3HW = torch.stack(
            [p_BM[:, j, None, None, None] * image for j, image in enumerate(images)]
        ).sum(dim=0)
        recon, parts = reconstruction(self.loss, sr_B3HW, as_float(batch.hr_B3HW), size)
        one_hot = class_loss(p_BM)
        # The published one is 1 where a single class takes all patches.
        average = average_loss(logits_BM[..., None], self.sum_over_ranks) * M / (2 * (M - 1))
        parts = {**parts, "recon": recon, "class": one_hot, "avg": average}
        return self.w_recon * recon + self.w_class * one_hot + self.w_avg * average, parts

    def predict(self, lr_B3hw: Tensor, size: tuple[int, int]) -> Prediction:
        with torch.autocast(lr_B3hw.device.type, enabled=False):
            results = [upscale_padded(self.network, lr[None], RoutingConfig()) for lr in lr_B3hw]
        return Prediction(
            torch.cat([result.image for result in results]),
            torch.cat([result.assignment for result in results]),
            sum(result.flops.gmacs for result in results),
        )

    def trained_parts(self) -> dict[str, nn.Module]:
        more = branches(self.network) if self.train_branches else {}
        return {"classifier": self.network.classifier, **more}

    def frozen_parts(self) -> dict[str, nn.Module]:
        return {} if self.train_branches else branches(self.network)


def branches(network: ClassSR) -> dict[str, nn.Module]:
    """Its networks by name."""
    return {f"branch {j}": network.branch(j) for j in range(network.num_classes)}


def by_difficulty(lr_B3hw: Tensor, hr_B3HW: Tensor) -> Tensor:
    """The numbers of a batch's crops, the one with the largest error of bicubic upscaling first."""
    size = (hr_B3HW.shape[-2], hr_B3HW.shape[-1])
    sr_B3HW = F.interpolate(lr_B3hw, size, mode="bicubic", align_corners=False)
    error_B = (sr_B3HW - hr_B3HW).square().mean(dim=(1, 2, 3))
    return error_B.argsort(descending=True, stable=True)

"""``stage=arm``: the sub-networks of ARM, trained in turn, and their table.

Legend: N patches, M classes, heaviest first, P side of an HR patch.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.images.comparison import eight_bit, shave
from pcsr_lightning.inference import original_flops, patch_flops
from pcsr_lightning.networks import ARM
from pcsr_lightning.networks.arm import edge_score
from pcsr_lightning.networks.patch_routed import PATCH, STEP
from pcsr_lightning.training.losses import reconstruction
from pcsr_lightning.training.modules.base import Prediction, SRStage
from pcsr_lightning.training.modules.batches import TrainBatch, ValPicture, as_float, common_size
from pcsr_lightning.training.validation import counted_pictures, validation_sets


class ARMStage(SRStage):
    """Trains one sub-network a step, drawn with a probability that grows with its cost.

    Validation measures the widest sub-network. Afterwards it makes the table from edge score to
    PSNR, of the patches of the (first set of) validation pictures.

    Args:
        network: an ARM.
        name: of the stage.
        power: probabilities are the costs to this power; 2 in the published code.
        seed: of the draw.
        options: further arguments of :class:`SRStage`.
    """

    network: ARM
    network_class: ClassVar[type[nn.Module]] = ARM

    def __init__(
        self, network: ARM, *, name: str = "arm", power: float = 2.0, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(network, name=name, **options)
        costs = [flops.gflops_published for flops in patch_flops(network).classes[:-1]]
        weights = np.array(costs) ** power
        self.probabilities, self.seed = weights / weights.sum(), seed
        self._patches: list[tuple[Tensor, Tensor]] = []

    def losses(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        size, j = common_size(batch, "ARM"), self.drawn_class()
        sr_B3HW = self.network.run_class(j, batch.lr_B3hw)
        loss, parts = reconstruction(self.loss, sr_B3HW, as_float(batch.hr_B3HW), size)
        return loss, {**parts, f"recon_{j}": loss}

    def drawn_class(self) -> int:
        """The sub-network of this step; alike on all devices, and in a resumed run."""
        draw = np.random.default_rng([self.seed, self.global_step])
        return int(draw.choice(len(self.probabilities), p=self.probabilities))

    def predict(self, lr_B3hw: Tensor, size: tuple[int, int]) -> Prediction:
        cost = original_flops(self.network.widest, lr_B3hw[:, 0].numel())
        return Prediction(self.network.run_class(0, lr_B3hw), gmacs=cost.gmacs)

    def trained_parts(self) -> dict[str, nn.Module]:
        return {"supernet": self.network.supernet}

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._patches.clear()

    def validation_step(
        self, batch: ValPicture, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor | None]:
        found = super().validation_step(batch, batch_idx, dataloader_idx)
        if dataloader_idx == 0 and min(batch.lr.shape[-2:]) >= PATCH:
            loader = next(iter(validation_sets(self.trainer).values()))
            counted = counted_pictures(loader, batch_idx, len(batch.lr))
            for i in (i for i, counts in enumerate(counted) if counts):
                self._patches.append(self.measure_patches(batch.lr[i : i + 1], batch.hr[i : i + 1]))
        return found

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        classes = self.network.num_classes
        nothing = torch.zeros(0, device=self.device), torch.zeros(0, classes, device=self.device)
        edges_N, psnr_NM = (torch.cat(parts) for parts in zip(nothing, *self._patches, strict=True))
        if self.trainer.world_size > 1:
            rows = torch.cat([edges_N[:, None], psnr_NM], dim=1)
            rows = _of_all_ranks(rows, self.trainer.world_size)
            edges_N, psnr_NM = rows[:, 0], rows[:, 1:]
        if len(edges_N):
            self.network.fill_table(edges_N, psnr_NM)

    def measure_patches(self, lr_13hw: Tensor, hr_13HW: Tensor) -> tuple[Tensor, Tensor]:
        """The edge scores of a picture's patches ``(N,)``, and each class's PSNR ``(N, M)``."""
        scale, M = self.network.scale, self.network.num_classes
        lr_parts = Layout(PATCH, STEP).cut(lr_13hw)
        hr_parts = Layout(PATCH * scale, STEP * scale).cut(hr_13HW)
        hr_N3PP = torch.cat(list(hr_parts))
        edges, psnrs, done = [], [], 0
        with torch.autocast(lr_13hw.device.type, enabled=False):
            for lr_N3pp in lr_parts:
                wanted = hr_N3PP[done : done + len(lr_N3pp)]
                done += len(lr_N3pp)
                edges.append(edge_score(lr_N3pp))
                images = [self.network.run_class(j, lr_N3pp) for j in range(M)]
                psnrs.append(torch.stack([_psnr(x, wanted, scale) for x in images], dim=1))
        return torch.cat(edges), torch.cat(psnrs)


def _psnr(sr_N3PP: Tensor, hr_N3PP: Tensor, border: int) -> Tensor:
    """PSNR of each patch in dB, ``(N,)``, rounded to 8 bit and without its border."""
    sr, hr = (shave(eight_bit(x), border).double() for x in (sr_N3PP, hr_N3PP))
    error_N = (sr - hr).square().mean(dim=(1, 2, 3))
    return (20 * math.log10(255) - 10 * error_N.log10()).float()


def _of_all_ranks(rows: Tensor, count: int) -> Tensor:
    """The rows of all processes, in the order of their ranks."""
    gathered: list[Tensor | None] = [None] * count
    torch.distributed.all_gather_object(gathered, rows.cpu())
    return torch.cat([part for part in gathered if part is not None]).to(rows.device)

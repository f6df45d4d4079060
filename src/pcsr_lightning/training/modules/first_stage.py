"""``stage=1``: backbone and heaviest upsampler (Sec. 3.3)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference import all_heavy_flops
from pcsr_lightning.networks import PCSR, reparameterize
from pcsr_lightning.training.distillation import Teacher
from pcsr_lightning.training.losses import reconstruction
from pcsr_lightning.training.modules.base import Prediction
from pcsr_lightning.training.modules.batches import TrainBatch
from pcsr_lightning.training.modules.pcsr_stage import PCSRStage
from pcsr_lightning.training.reinitialization import reinitialize_dead_units


class FirstStage(PCSRStage):
    """Trains ``{B, U_0}`` on the reconstruction loss: it sets the best the model can do.

    Args:
        network: a PCSR with one upsampler.
        name: of the stage.
        teacher: a larger model, or its name or file, whose pictures are learned; ``None`` for the
            ground truth, as in the paper. Validation compares with the ground truth in either case.
        teacher_share: of the teacher's picture in what is learned, for a teacher given by name.
        reinitialize_dead_units: steps from one reinitialisation of the upsampler's dead units to
            the next, see :func:`reinitialize_dead_units`; ``None`` leaves them.
        reparameterized: trains the backbone's convolutions with parallel branches, see
            :func:`~pcsr_lightning.networks.reparameterize`; model files hold the plain network.
        options: further arguments of :class:`PCSRStage`.

    Raises:
        ConfigError: a value out of range, or a teacher that is no PCSR model.
        ModelFileError: there is no such teacher.
    """

    def __init__(
        self,
        network: PCSR,
        *,
        name: str = "1",
        teacher: Teacher | str | None = None,
        teacher_share: float = 1.0,
        reinitialize_dead_units: int | None = None,
        reparameterized: bool = False,
        **options: Any,
    ) -> None:
        if network.num_classes > 1:
            raise ConfigError(
                f"a first stage trains one upsampler, and this network has {network.num_classes}"
            )
        if reparameterized:
            reparameterize(network.backbone)
        super().__init__(network, name=name, **options)
        every = reinitialize_dead_units
        if every is not None and every < 1:
            raise ConfigError(
                f"stage.reinitialize_dead_units={every}: must be at least 1, or null for never"
            )
        self.reinitialize_every = every
        self.teacher = Teacher.load(teacher, teacher_share) if isinstance(teacher, str) else teacher

    def on_train_batch_start(self, batch: TrainBatch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        if self.reinitialize_every is None or self.global_step % self.reinitialize_every:
            return
        size = (batch.hr_B3HW.shape[-2], batch.hr_B3HW.shape[-1])
        mlp = self.network.upsampler(0)
        queries = self.draw_queries(batch)
        dead = reinitialize_dead_units(
            self.network, mlp, batch.lr_B3hw, size, queries, self.generator()
        )
        if self.trainer.world_size > 1:  # each rank judged by its own crops: rank 0's count
            mlp.load_state_dict(self.trainer.strategy.broadcast(mlp.state_dict()))
        self.log("train/dead_units", float(sum(dead)), rank_zero_only=True)

    def losses(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        size = (batch.hr_B3HW.shape[-2], batch.hr_B3HW.shape[-1])
        queries = self.queries_of_step(batch)
        out, target_B3Q = self.query(batch, queries)
        if self.teacher is not None:
            target_B3Q = self.teacher.target(batch.lr_B3hw, target_B3Q, size, queries)
        whole = size if queries is None else None
        return reconstruction(self.loss, out.mixed(), target_B3Q, whole)

    def predict(self, lr_B3hw: Tensor, size: tuple[int, int]) -> Prediction:
        sr_B3Q: Tensor = self.network(lr_B3hw, size).mixed()
        lr_size = (lr_B3hw.shape[-2], lr_B3hw.shape[-1])
        cost = all_heavy_flops(self.network, lr_size, size, lr_B3hw.shape[0])
        return Prediction(sr_B3Q.reshape(-1, 3, *size), gmacs=cost.gmacs)

    def trained_parts(self) -> dict[str, nn.Module]:
        return {"backbone": self.network.backbone, "upsampler 0": self.network.upsampler(0)}

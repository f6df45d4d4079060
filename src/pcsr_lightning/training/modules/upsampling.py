"""``stage=1``, ``2``, ...: PCSR's own stages (Sec. 3.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import PCSR, Original, enlarge
from pcsr_lightning.routing import assign_by_k, refine, refines_at
from pcsr_lightning.training.distillation import Teacher
from pcsr_lightning.training.losses import average_loss, reconstruction_loss
from pcsr_lightning.training.modules.base import Restored, SRStage, TrainBatch
from pcsr_lightning.training.optim.schedule import Schedule
from pcsr_lightning.training.reinitialization import revive


class PCSRStage(SRStage):
    """What PCSR's stages share: the choice of query pixels.

    Args:
        network: a PCSR with as many upsamplers as the stage's number.
        schedule: learning rate and length.
        queries: how many HR pixels of each crop are drawn a step; ``None`` takes all of them.
        seed: of that draw.
        facts: plain values for the checkpoint.
        recon: kind of the reconstruction loss.
    """

    network: PCSR

    def __init__(
        self,
        network: PCSR,
        schedule: Schedule,
        queries: int | None = None,
        seed: int = 0,
        facts: dict[str, Any] | None = None,
        recon: str = "l1",
    ) -> None:
        super().__init__(network, schedule, facts, recon)
        if queries is not None and queries < 1:
            raise ConfigError(f"stage.queries must be at least 1, or null for all, not {queries}")
        self.queries = queries
        self.seed = seed

    def draw_queries(self, size: tuple[int, int]) -> Tensor | None:
        """Flat indices of this step's query pixels, the same for all crops of the batch."""
        total = size[0] * size[1]
        if self.queries is None or self.queries >= total:
            return None
        return torch.randint(total, (self.queries,), generator=self.draws()).to(self.device)

    def draws(self) -> torch.Generator:
        """Random numbers of this step, which a resumed run draws as the uninterrupted one would."""
        return torch.Generator().manual_seed((self.seed << 32) + self.global_step)


class FirstStage(PCSRStage):
    """Trains ``{B, U_0}``: it sets the best the model can do.

    Args:
        teacher: whose pictures are learned; ``None`` for the truth, as in the paper. Validation
            compares with the truth in either case.
        revive: units of the upsampler that are dead are started anew every so many steps, see
            :func:`revive`; ``None`` leaves them.
    """

    def __init__(
        self,
        network: PCSR,
        schedule: Schedule,
        queries: int | None = None,
        seed: int = 0,
        facts: dict[str, Any] | None = None,
        recon: str = "l1",
        teacher: Teacher | None = None,
        revive: int | None = None,
    ) -> None:
        super().__init__(network, schedule, queries, seed, facts, recon)
        if revive is not None and revive < 1:
            raise ConfigError(f"stage.revive must be at least 1, or null for never, not {revive}")
        self.teacher = teacher
        self.revive = revive

    def on_train_batch_start(self, batch: TrainBatch, batch_idx: int) -> None:
        if self.revive is None or self.global_step % self.revive:
            return
        size = (batch.hr_B3HW.shape[-2], batch.hr_B3HW.shape[-1])
        mlp = self.network.upsampler(0)
        queries_Q = self.draw_queries(size)
        dead = revive(self.network, mlp, batch.lr_B3hw, size, queries_Q, self.draws())
        if self.trainer.world_size > 1:  # each rank judged by its own crops: rank 0's count
            mlp.load_state_dict(self.trainer.strategy.broadcast(mlp.state_dict()))
        self.log("train/dead_units", float(sum(dead)), rank_zero_only=True)

    def loss(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        size = (batch.hr_B3HW.shape[-2], batch.hr_B3HW.shape[-1])
        queries_Q = self.draw_queries(size)
        aim_B3Q = at_queries(batch.hr_B3HW, queries_Q)
        if self.teacher is not None:
            aim_B3Q = self.teacher.lesson(batch.lr_B3hw, aim_B3Q, size, queries_Q)
        sr_B3Q = self.network(batch.lr_B3hw, size, queries_Q).mixed()
        return reconstruction_loss(sr_B3Q, aim_B3Q, self.recon), {}

    def restore(self, lr_B3hw: Tensor, size: tuple[int, int]) -> Restored:
        sr_B3Q: Tensor = self.network(lr_B3hw, size).mixed()
        return Restored(sr_B3Q.reshape(-1, 3, *size))

    def trained_parts(self) -> dict[str, nn.Module]:
        return {"backbone": self.network.backbone, "upsampler 0": self.network.upsampler(0)}


class LaterStage(PCSRStage):
    """Trains ``{U_j, C}`` on ``w_recon * L_recon + w_avg * L_avg`` (Eq. 8), all else frozen.

    Args:
        w_recon: weight of the reconstruction loss.
        w_avg: weight of the average loss.
    """

    def __init__(
        self,
        network: PCSR,
        schedule: Schedule,
        queries: int | None = None,
        seed: int = 0,
        facts: dict[str, Any] | None = None,
        recon: str = "l1",
        w_recon: float = 1000.0,
        w_avg: float = 3.0,
    ) -> None:
        super().__init__(network, schedule, queries, seed, facts, recon)
        if network.num_classes < 2:
            raise ConfigError("a later stage needs at least two upsamplers")
        self.w_recon, self.w_avg = w_recon, w_avg

    def loss(self, batch: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        size = (batch.hr_B3HW.shape[-2], batch.hr_B3HW.shape[-1])
        queries_Q = self.draw_queries(size)
        out = self.network(batch.lr_B3hw, size, queries_Q)
        recon = reconstruction_loss(out.mixed(), at_queries(batch.hr_B3HW, queries_Q), self.recon)
        average = average_loss(out.logits_BMQ, self.sum_over_ranks)
        return self.w_recon * recon + self.w_avg * average, {"recon": recon, "avg": average}

    def restore(self, lr_B3hw: Tensor, size: tuple[int, int]) -> Restored:
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
        rough = enlarge(lr_B3hw, size) + residual
        (h, w), (H, W) = grid.lr_size, size
        if refines_at((H / h, W / w)):
            rough = refine(rough, class_BHW, network.num_classes)
        return Restored(rough, class_BHW)

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


def at_queries(hr_B3HW: Tensor, queries_Q: Tensor | None) -> Tensor:
    """The truth at the query pixels, ``(B, 3, Q)``; all pixels for ``None``."""
    hr_B3Q = hr_B3HW.flatten(2)
    return hr_B3Q if queries_Q is None else hr_B3Q.index_select(2, queries_Q)


def go_on(earlier: PCSR | Original, network: PCSR | Original) -> None:
    """Starts a first stage, or an original model, from the same parts of a trained model, in place.

    Raises:
        ConfigError: the networks do not fit each other; the message names both.
    """
    before, after = earlier.config(), network.config()
    if isinstance(earlier, PCSR):
        before = {**before, "upsamplers": before["upsamplers"][:1], "classifier": None}
    if before != after:
        raise ConfigError(
            f"init is a model of {_words(before)}; this stage's is of {_words(after)}"
        )
    mine = network.state_dict()
    network.load_state_dict({k: v for k, v in earlier.state_dict().items() if k in mine})


def _words(config: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in config.items() if value is not None)


def grow(earlier: PCSR, network: PCSR) -> None:
    """Copies what an earlier stage trained into the next stage's network, in place.

    Backbone and upsamplers are taken over whole; the classifier's hidden layers too, and the rows
    of its last layer for the classes it already knew (it gains an output with each class).

    Raises:
        ConfigError: the networks do not fit each other; the message names both.
    """
    before, after = earlier.config(), network.config()
    known = before["upsamplers"]
    same = all(before[key] == after[key] for key in ("backbone", "mean"))
    if not same or after["upsamplers"][: len(known)] != known or len(known) >= network.num_classes:
        raise ConfigError(
            "the model to start from does not fit this stage: it has backbone "
            f"{before['backbone']} and upsamplers {known}, the stage needs backbone "
            f"{after['backbone']} and upsamplers that start {after['upsamplers'][:-1]}"
        )
    network.backbone.load_state_dict(earlier.backbone.state_dict())
    for j in range(earlier.num_classes):
        network.upsampler(j).load_state_dict(earlier.upsampler(j).state_dict())
    if earlier.classifier is None or network.classifier is None:
        return
    if before["classifier"] != after["classifier"]:
        raise ConfigError(
            f"the classifier to start from has hidden layers {before['classifier']}, "
            f"this stage's {after['classifier']}"
        )
    grown = network.classifier.state_dict()
    for name, old in earlier.classifier.state_dict().items():
        # Only layers that end in the classes differ in shape, and only in their first dimension.
        grown[name][: old.shape[0]] = old
    network.classifier.load_state_dict(grown)

"""How a stage's weights are stepped: the optimizer, and the learning rate over the run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.training.optim.muon import Muon

OPTIMIZERS = ("adam", "muon")
SHAPES = ("cosine", "trapezoid")


@dataclass(frozen=True)
class Schedule:
    """The optimizer and its learning rate. The defaults are the paper's (Sec. 4.1).

    Attributes:
        lr: the highest learning rate.
        steps: optimizer steps of the whole run.
        lr_min: what the rate falls to at the last step.
        betas: Adam's.
        optimizer: ``adam``, or ``muon`` (:class:`Muon`), which needs far fewer steps.
        shape: ``cosine`` annealing without restart, or ``trapezoid``: level, then in a straight
            line down, so that a run resumed before its descent can be made longer at will.
        warmup: steps over which the rate first rises in a straight line.
        decay: share of the steps in which a trapezoid comes down.
        vector_lr: share of ``lr`` for what Muon leaves to Adam. At 1 the offsets of narrow MLPs
            wander until most units are never on.
        weight_decay: decoupled, a share of ``lr`` that every step takes away: of Muon's matrices,
            whose size nothing else holds back, or of all weights with Adam (AdamW).

    Raises:
        ConfigError: a value out of range.
    """

    lr: float
    steps: int
    lr_min: float = 1e-7
    betas: tuple[float, float] = (0.9, 0.99)
    optimizer: str = "adam"
    shape: str = "cosine"
    warmup: int = 0
    decay: float = 0.5
    vector_lr: float = 1.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if not (self.lr > self.lr_min >= 0 and self.steps > 0):
            raise ConfigError(
                f"need lr > lr_min >= 0 and at least one step, not lr={self.lr}, "
                f"lr_min={self.lr_min}, steps={self.steps}"
            )
        for key, value, choices in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.shape, SHAPES),
        ):
            if value not in choices:
                raise ConfigError(f"stage.{key}={value}: must be one of {', '.join(choices)}")
        if self.warmup < 0:
            raise ConfigError(f"stage.warmup={self.warmup}: must be at least 0 steps")
        for key, share in (("decay", self.decay), ("vector_lr", self.vector_lr)):
            if not 0 < share <= 1:
                raise ConfigError(f"stage.{key}={share}: must be a share in (0, 1]")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"stage.weight_decay={self.weight_decay}: must be at least 0")

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        if self.shape == "cosine":
            done = min(1.0, step / self.steps)
            high = (1 + math.cos(math.pi * done)) / 2
        else:
            high = min(1.0, max(0.0, (self.steps - step) / (self.decay * self.steps)))
        return self.lr_min + (self.lr - self.lr_min) * high

    def make_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the network's trainable parameters."""
        if self.optimizer == "muon":
            return Muon(
                network,
                self.lr,
                self.betas,
                vector_lr=self.vector_lr,
                weight_decay=self.weight_decay,
            )
        trained = [p for p in network.parameters() if p.requires_grad]
        if self.weight_decay:
            return torch.optim.AdamW(
                trained, self.lr, self.betas, weight_decay=self.weight_decay, fused=True
            )
        return torch.optim.Adam(trained, self.lr, self.betas, fused=True)

    def make_scheduler(
        self, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Sets the optimizer's rate to :meth:`lr_at` at every step."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.lr_at(step) / self.lr)

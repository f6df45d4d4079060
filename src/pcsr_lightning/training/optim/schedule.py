"""The learning rate over a run that is counted in steps."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pcsr_lightning.errors import ConfigError


def cosine(
    optimizer: Optimizer, steps: int = -1, lr_min: float = 1e-7, warmup: int = 0
) -> LambdaLR:
    """Cosine annealing without restart (Sec. 4.1).

    Args:
        optimizer: its ``lr`` is the highest learning rate.
        steps: optimizer steps over which it falls; a stage puts those of the whole run for -1.
        lr_min: the learning rate after the last step.
        warmup: steps over which the rate first rises in a straight line.

    Raises:
        ConfigError: a value out of range.
    """
    return _schedule(
        optimizer, steps, lr_min, warmup, lambda step: (1 + math.cos(math.pi * (step / steps))) / 2
    )


def trapezoid(
    optimizer: Optimizer,
    steps: int = -1,
    lr_min: float = 1e-7,
    warmup: int = 0,
    decay: float = 0.5,
) -> LambdaLR:
    """A level learning rate, then a straight line down to ``lr_min``.

    A run that is resumed before its descent can be made longer at will.

    Args:
        optimizer: its ``lr`` is the highest learning rate.
        steps: optimizer steps until it has come down; a stage puts those of the whole run for -1.
        lr_min: the learning rate after the last step.
        warmup: steps over which the rate first rises in a straight line.
        decay: share of the steps in which it comes down.

    Raises:
        ConfigError: a value out of range.
    """
    if not 0 < decay <= 1:
        raise ConfigError(f"scheduler.decay={decay}: must be a share in (0, 1]")
    return _schedule(
        optimizer, steps, lr_min, warmup, lambda step: min(1.0, (steps - step) / (decay * steps))
    )


def _schedule(
    optimizer: Optimizer, steps: int, lr_min: float, warmup: int, height: Callable[[int], float]
) -> LambdaLR:
    """The rate between ``lr_min`` (``height`` 0) and the optimizer's ``lr`` (1)."""
    lr = float(optimizer.defaults["lr"])
    if not lr > 0:
        raise ConfigError(f"optimizer.lr={lr}: must be above 0")
    if not lr > lr_min >= 0:
        raise ConfigError(f"scheduler.lr_min={lr_min}: must be at least 0, and below {lr=}")
    for key, value, least in (("steps", steps, 1), ("warmup", warmup, 0)):
        if value < least:
            raise ConfigError(f"scheduler.{key}={value}: must be at least {least}")

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return (lr_min + (lr - lr_min) * height(min(step, steps))) / lr

    # A function and not an object: a checkpoint keeps nothing of it, so that a resumed run may
    # have other steps.
    return LambdaLR(optimizer, factor)

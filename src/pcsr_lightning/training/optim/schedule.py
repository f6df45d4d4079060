"""The learning rate over a run, whose end is given in steps, or by the clock."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pcsr_lightning.errors import ConfigError

Done = Callable[[], float]


def cosine(
    optimizer: Optimizer,
    steps: int = -1,
    lr_min: float = 1e-7,
    warmup: int = 0,
    done: Done | None = None,
) -> LambdaLR:
    """Cosine annealing without restart (Sec. 4.1).

    Args:
        optimizer: its ``lr`` is the highest learning rate.
        steps: optimizer steps over which it falls; a stage puts those of the whole run for -1.
        lr_min: the learning rate after the last step.
        warmup: steps over which the rate first rises in a straight line.
        done: gives the share of the run's time that is done, where time limits it; what is further,
            steps or time, decides. ``steps`` may be -1 then: the time alone decides.

    Raises:
        ConfigError: a value out of range.
    """

    def height(step: float, steps: int) -> float:
        return (1 + math.cos(math.pi * (step / steps))) / 2

    return _schedule(optimizer, steps, lr_min, warmup, done, height)


def trapezoid(
    optimizer: Optimizer,
    steps: int = -1,
    lr_min: float = 1e-7,
    warmup: int = 0,
    decay: float = 0.5,
    done: Done | None = None,
) -> LambdaLR:
    """A level learning rate, then a straight line down to ``lr_min``.

    A run that is resumed before its descent can be made longer at will.

    Args:
        optimizer: its ``lr`` is the highest learning rate.
        steps: optimizer steps until it has come down; a stage puts those of the whole run for -1.
        lr_min: the learning rate after the last step.
        warmup: steps over which the rate first rises in a straight line.
        decay: share of the run in which it comes down.
        done: as of :func:`cosine`.

    Raises:
        ConfigError: a value out of range.
    """
    if not 0 < decay <= 1:
        raise ConfigError(f"scheduler.decay={decay}: must be a share in (0, 1]")

    def height(step: float, steps: int) -> float:
        return min(1.0, (steps - step) / (decay * steps))

    return _schedule(optimizer, steps, lr_min, warmup, done, height)


def _schedule(
    optimizer: Optimizer,
    steps: int,
    lr_min: float,
    warmup: int,
    done: Done | None,
    height: Callable[[float, int], float],
) -> LambdaLR:
    """The rate between ``lr_min`` (``height`` 0) and the optimizer's ``lr`` (1)."""
    if done is not None and steps == -1:
        steps = sys.maxsize
    lr = float(optimizer.defaults["lr"])
    if not lr > 0:
        raise ConfigError(f"optimizer.lr={lr}: must be above 0")
    if not lr > lr_min >= 0:
        raise ConfigError(f"scheduler.lr_min={lr_min}: must be at least 0, and below {lr=}")
    for key, value, least in (("steps", steps, 1), ("warmup", warmup, 0)):
        if value < least:
            raise ConfigError(f"scheduler.{key}={value}: must be at least {least}")

    def factor(step: int) -> float:
        rising = (step + 1) / (warmup + 1) if step < warmup else 1.0
        if step < warmup and done is None:
            return rising
        reached = step if done is None else max(step, done() * steps)
        return min(rising, (lr_min + (lr - lr_min) * height(min(reached, steps), steps)) / lr)

    # A function and not an object: a checkpoint keeps nothing of it, so that a resumed run may
    # have other steps.
    return LambdaLR(optimizer, factor)

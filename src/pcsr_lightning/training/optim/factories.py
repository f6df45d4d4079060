"""Optimizers and learning rate schedules from what a user gives, any class or function."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.training.callbacks.clock import clock_of

LENGTHS = ("steps", "total_steps", "T_max")
"""How schedules call their number of steps; -1 there means that of the whole run."""
UNKNOWN = 10**6
"""In their place while other arguments are checked and there is no trainer yet."""
LIGHTNINGS = ("monitor", "interval", "frequency")
"""What Lightning takes beside a schedule."""


def make_optimizer(factory: Callable[..., Optimizer], network: nn.Module) -> Optimizer:
    """The optimizer of a network's trainable parameters.

    Args:
        factory: takes the parameters, as torch's optimizers do; or the whole network, if it has an
            argument of that name (:class:`~pcsr_lightning.training.Muon` looks at its layers).
        network: what is trained.
    """
    if "network" in inspect.signature(factory).parameters:
        return factory(network=network)
    return factory([p for p in network.parameters() if p.requires_grad])


def make_schedule(
    factory: Callable[..., Any],
    optimizer: Optimizer,
    trainer: L.Trainer | None,
    done: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """A learning rate schedule, and when to step it, as Lightning takes it.

    It is stepped after every training step, and ``ReduceLROnPlateau`` after every validation, on
    ``val/psnr``.

    Args:
        factory: takes the optimizer; returns a schedule, or a mapping with ``scheduler``,
            ``monitor``, ``interval``, ``frequency`` as Lightning has them. Where its number of
            steps (``steps``, ``total_steps``, ``T_max``) is -1, it gets that of the whole run. In
            a run by the clock it also gets ``done``, if it takes that: a function without arguments
            that returns the share of the time that is done.
        optimizer: whose rate it sets.
        trainer: of the run; ``None`` to check the other arguments alone.
        done: where there is no trainer.

    Raises:
        ConfigError: the number of steps is needed and nobody knows it, or a plateau of PSNR is
            awaited with ``mode="min"``.
    """
    clock = None if trainer is None else clock_of(trainer)
    if clock is not None and trainer is not None:
        done = functools.partial(clock.share, trainer)
    arguments: dict[str, Any] = {}
    if done is not None:
        check_follows_time(factory, UNKNOWN if trainer is None else trainer.max_steps)
        arguments = {"done": done} if takes_time(factory) else {}
    asked = asked_lengths(factory)
    length = UNKNOWN if trainer is None or not asked else total_steps(trainer, bool(arguments))
    made = factory(optimizer, **dict.fromkeys(asked, length), **arguments)
    config = dict(made) if isinstance(made, Mapping) else {"scheduler": made}
    if not isinstance(config["scheduler"], ReduceLROnPlateau):
        return {"interval": "step", **config}
    config = {"monitor": "val/psnr", **_after_validation(trainer), **config}
    if config["monitor"] == "val/psnr" and config["scheduler"].mode == "min":
        raise ConfigError("scheduler.mode=min: val/psnr is better the higher it is; use mode=max")
    return config


def asked_lengths(factory: Callable[..., Any]) -> list[str]:
    """The arguments of a schedule that are to be the number of steps of the whole run."""
    arguments = inspect.signature(factory).parameters
    return [name for name in LENGTHS if name in arguments and arguments[name].default == -1]


def takes_time(factory: Callable[..., Any]) -> bool:
    """Whether a schedule can follow the share of a run's time that is done."""
    return "done" in inspect.signature(factory).parameters


def check_follows_time(factory: Callable[..., Any], max_steps: int) -> None:
    """Refuses a schedule over all steps of a run that will end before, by the clock.

    Args:
        factory: of the schedule.
        max_steps: of the trainer.

    Raises:
        ConfigError: says what to use.
    """
    arguments = inspect.signature(factory).parameters
    for name in LENGTHS:
        counts = name in arguments and arguments[name].default in (-1, max_steps)
        if counts and not takes_time(factory):
            raise ConfigError(
                f"the learning rate schedule counts steps ({name}) and cannot follow "
                "trainer.max_time: use scheduler=cosine or scheduler=trapezoid, or "
                "trainer.max_steps=N without trainer.max_time"
            )


def with_options(factory: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    """A factory of a schedule whose schedules come with Lightning's options."""

    @functools.wraps(factory)
    def make(optimizer: Optimizer, **arguments: Any) -> dict[str, Any]:
        return {"scheduler": factory(optimizer, **arguments), **options}

    return make if options else factory


def total_steps(trainer: L.Trainer, by_time: bool = False) -> int:
    """Optimizer steps of the whole run.

    ``trainer.estimated_stepping_batches`` begins to read batches, which has to wait until the step
    of a checkpoint is known; here it is asked only where there is no data module.

    Args:
        trainer: of the run.
        by_time: its time may be its only limit; the number is -1 then.

    Raises:
        ConfigError: the run is not limited.
    """
    steps: float
    if trainer.max_epochs in (None, -1):
        steps = math.inf if trainer.max_steps == -1 else trainer.max_steps
    elif trainer.datamodule is None:  # type: ignore[attr-defined]
        steps = trainer.estimated_stepping_batches
    else:
        batches = len(trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        limit = trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        steps = math.ceil(batches / trainer.accumulate_grad_batches) * trainer.max_epochs
        steps = steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)
    if math.isinf(steps) and by_time:
        return -1
    if math.isinf(steps):
        raise ConfigError(
            "the learning rate schedule needs the number of steps: set trainer.max_steps or "
            "trainer.max_epochs, or scheduler.steps"
        )
    return int(steps)


def _after_validation(trainer: L.Trainer | None) -> dict[str, Any]:
    """When Lightning is to step what depends on a validation."""
    every = None if trainer is None else trainer.val_check_interval
    by_steps = trainer is not None and trainer.max_epochs in (None, -1)
    if not by_steps or not isinstance(every, int):
        return {"interval": "epoch"}
    return {"interval": "step", "frequency": every}

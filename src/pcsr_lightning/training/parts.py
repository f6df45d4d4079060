"""The loss and the learning rate schedule that a config describes: ``_target_``, and what belongs
to a part of a sum or to Lightning instead of the class named there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig
from torch import nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.settings.instantiation import called, configured, in_plain_values
from pcsr_lightning.settings.signatures import check_type
from pcsr_lightning.training.losses import WeightedSum
from pcsr_lightning.training.optim.factories import LIGHTNINGS, with_options

TAKEN = ("loss", "recon", "avg", "dead_units")
"""What training logs under ``train/`` itself."""


def loss_factory(node: Mapping[str, Any] | DictConfig) -> Callable[[], nn.Module]:
    """What makes the loss of ``conf/loss``: a single one, or without ``_target_`` a weighted sum.

    Raises:
        ConfigError: a setting is unknown or of the wrong type.
    """
    values = in_plain_values(node, "loss")
    if "_target_" in values:
        return lambda: _module(configured(values, "loss"), "loss")
    if not values:
        raise ConfigError("loss is empty: expected losses by name, each with its _target_")
    makers, weights = {}, {}
    for name, part in values.items():
        key = f"loss.{name}"
        if not isinstance(part, Mapping):
            raise ConfigError(f"{key}={part}: expected a loss with its _target_ and weight")
        if name in TAKEN or not name.isidentifier():
            raise ConfigError(f"{key}: a loss of a sum cannot have this name; give it another")
        weights[name] = part.get("weight", 1.0)
        check_type(f"{key}.weight", weights[name], float)
        own = {k: v for k, v in part.items() if k != "weight"}
        makers[name] = configured(own, key)
    return lambda: WeightedSum(
        {name: _module(maker, f"loss.{name}") for name, maker in makers.items()}, weights
    )


def _module(maker: Callable[..., Any], key: str) -> nn.Module:
    made = called(maker, key)
    if not isinstance(made, nn.Module):
        raise ConfigError(f"{key}: {type(made).__name__} is no loss; expected a torch.nn.Module")
    return made


def schedule_factory(node: Mapping[str, Any] | DictConfig) -> Callable[..., Any]:
    """What makes the schedule of ``conf/scheduler``; ``monitor``, ``interval`` and ``frequency``
    are Lightning's.

    Raises:
        ConfigError: a setting is unknown or of the wrong type.
    """
    values = in_plain_values(node, "scheduler")
    options = {name: values.pop(name) for name in LIGHTNINGS if name in values}
    for name, kind in (("monitor", str), ("frequency", int)):
        if name in options:
            check_type(f"scheduler.{name}", options[name], kind)
    if options.get("interval", "step") not in ("step", "epoch"):
        raise ConfigError(f"scheduler.interval={options['interval']}: expected step or epoch")
    return with_options(configured(values, "scheduler"), options)

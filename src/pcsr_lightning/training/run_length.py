"""How long a training is, in steps, epochs or time, and how often it validates and logs."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.settings.instantiation import in_plain_values
from pcsr_lightning.settings.signatures import check_integer
from pcsr_lightning.training.callbacks.clock import parse_time

VAL_INTERVAL = 5000
"""Steps from one validation to the next, where nothing else is said."""


def check_length(trainer: DictConfig) -> None:
    """Whether a training is limited in steps, epochs or time, and its intervals are usable.

    Raises:
        ConfigError: names the setting.
    """
    steps, epochs, every = (
        trainer.get(key) for key in ("max_steps", "max_epochs", "val_check_interval")
    )
    check_integer("trainer.log_every_n_steps", trainer.get("log_every_n_steps"), 1)
    if epochs is not None:
        check_integer("trainer.max_epochs", epochs, 1)
    time = parse_time(in_plain_values(trainer, "trainer").get("max_time"))
    if steps == -1 and epochs is None and time is None:
        raise ConfigError(
            "trainer.max_steps=-1: say how long to train with trainer.max_epochs=N or "
            "trainer.max_time=HH:MM:SS"
        )
    if steps != -1:
        check_integer("trainer.max_steps", steps, 1)
        if epochs is not None:
            raise ConfigError(
                f"trainer.max_epochs={epochs} and trainer.max_steps={steps} exclude each other: "
                "to train by epochs, add trainer.max_steps=-1"
            )
    if type(every) is float and not 0 < every <= 1:
        raise ConfigError(
            f"trainer.val_check_interval={every}: must be a number of steps, or a share of an "
            "epoch in (0, 1] such as 0.5 or 1.0"
        )
    if type(every) is int or type(every) is bool:
        check_integer("trainer.val_check_interval", every, 1)


def with_intervals(options: dict[str, Any]) -> dict[str, Any]:
    """A trainer's options with the intervals between validations and between lines of the log."""
    by_epochs = options.get("max_epochs") is not None
    every, epochs = options.get("val_check_interval"), options.get("check_val_every_n_epoch")
    if every is None:
        every = 1.0 if by_epochs or epochs is not None else VAL_INTERVAL
    if isinstance(every, float) and epochs is None:
        epochs = 1
    logged = options["log_every_n_steps"]
    if not by_epochs and options["max_steps"] > 0:  # a short run is validated and logged too
        every = min(every, options["max_steps"]) if isinstance(every, int) else every
        logged = min(logged, options["max_steps"])
    return {
        **options,
        "val_check_interval": every,
        "check_val_every_n_epoch": epochs,
        "log_every_n_steps": logged,
    }

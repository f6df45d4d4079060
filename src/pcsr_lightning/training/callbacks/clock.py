"""Training by the clock: a run that lasts a given time, and the share of it that is done."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer

from pcsr_lightning.errors import ConfigError

STATE = Timer.__qualname__
"""The name that checkpoints keep the time under that a run has used, as Lightning's own timer."""


class Clock(Timer):
    """Ends a training after a given time, between two steps, and says how much of it is done.

    It is what ``trainer.max_time`` makes; a trainer of one's own gets it among its callbacks. Then
    schedules that can follow time fall over this duration, which Lightning's own ``Timer`` alone
    does not make them do.

    The time counts from the first step on, validations included; what was used before a run was
    resumed counts too. In several processes the one with the longest time decides for all, by one
    reduction a step: they have the same learning rate, and stop after the same step.

    Args:
        duration: of the training, above zero.

    Attributes:
        time_is_up: the training has ended for that reason.
    """

    def __init__(self, duration: timedelta) -> None:
        super().__init__(duration, verbose=False)
        self.duration_s = duration.total_seconds()
        self.time_is_up = False
        self._measured: float | None = None  # in this step

    @property
    def state_key(self) -> str:
        return STATE

    def share(self, trainer: L.Trainer) -> float:
        """The share of the time that is done, in [0, 1], measured once a step.

        All processes have to ask, since they measure it together.
        """
        if self._measured is None:
            elapsed = self.time_elapsed()
            if trainer.world_size > 1:
                device = trainer.strategy.root_device
                own = torch.tensor(elapsed, dtype=torch.float64, device=device)
                elapsed = float(trainer.strategy.reduce(own, reduce_op="max"))
            self._measured = min(1.0, elapsed / self.duration_s)
        return self._measured

    def on_fit_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self._end_if_over(trainer)  # resumed between its last step and its record

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._measured = None

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        # Gradients that are being accumulated would be lost.
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            self._end_if_over(trainer)
        self._measured = None

    def _end_if_over(self, trainer: L.Trainer) -> None:
        self.time_is_up = self.share(trainer) >= 1
        trainer.should_stop = trainer.should_stop or self.time_is_up


def clock_of(trainer: L.Trainer) -> Clock | None:
    """The clock that ends a run, if any."""
    found = [c for c in trainer.callbacks if isinstance(c, Clock)]  # type: ignore[attr-defined]
    return found[0] if found else None


def time_is_up(trainer: L.Trainer) -> bool:
    """Whether the clock of a run has ended it."""
    clock = clock_of(trainer)
    return clock is not None and clock.time_is_up


def time_used(checkpoint: dict[str, Any]) -> float:
    """Seconds of training before a checkpoint, if its run was by the clock."""
    elapsed = checkpoint.get("callbacks", {}).get(STATE, {}).get("time_elapsed", {})
    return float(elapsed.get("train", 0.0))


def parse_time(value: object) -> timedelta | None:
    """``trainer.max_time``: ``[DD:]HH:MM:SS``, or ``{minutes: 9}`` as ``timedelta`` takes it.

    Raises:
        ConfigError: it is neither, or not above zero.
    """
    if value is None:
        return None
    wrong = ConfigError(
        f"trainer.max_time={value}: expected a time above zero as [DD:]HH:MM:SS, such as 00:09:00 "
        "for nine minutes (in a YAML file within quotes)"
    )
    match = re.fullmatch(r"(?:(\d+):)?(\d+):(\d\d):(\d\d)", value) if type(value) is str else None
    parts: Any = value
    if match is not None:
        names = ("days", "hours", "minutes", "seconds")
        parts = {name: int(n) for name, n in zip(names, match.groups("0"), strict=True)}
    try:
        found = timedelta(**parts)
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    if found <= timedelta(0):
        raise wrong
    return found

"""What a data module's batches must have, checked before a stage uses them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError


def check_train_batch(batch: object) -> None:
    """Refuses a training batch without the tensors that a stage trains on.

    Raises:
        ConfigError: says what it must have, and what it is.
    """
    _check(batch, ("lr_B3hw", "hr_B3HW"), "training batch", "TrainBatch(lr_B3hw, hr_B3HW)")


def check_val_picture(batch: object) -> None:
    """Refuses a validation picture without LR and HR pixels or without a name.

    Raises:
        ConfigError: says what it must have, and what it is.
    """
    shown = "ValPicture(lr, hr, name)"
    _check(batch, ("lr", "hr"), "validation picture", shown)
    if not isinstance(getattr(batch, "name", None), str):
        raise ConfigError(f"data: a validation picture needs a name, a text, as {shown} has it")


def _check(batch: object, names: tuple[str, str], what: str, example: str) -> None:
    for name in names:
        value = getattr(batch, name, None)
        if not isinstance(value, Tensor):
            reason = f"this one is {_described(batch)}"
        elif value.ndim != 4 or value.shape[1] != 3 or value.dtype != torch.float32:
            reason = f"{name} is {value.dtype} of shape {tuple(value.shape)}"
        else:
            continue
        raise ConfigError(
            f"data: a {what} must have {names[0]} and {names[1]}, torch.float32 of shapes "
            f"(B, 3, h, w) and (B, 3, H, W) in [0, 1]; {reason}: give it as "
            f"pcsr_lightning.data.{example}"
        )


def _described(batch: object) -> str:
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} of {', '.join(map(str, batch))}"
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} of {', '.join(type(item).__name__ for item in batch)}"
    return f"a {type(batch).__name__}"

"""What a stage gets from a data module, and checks before it uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError


class TrainBatch(Protocol):
    """What a training step gets: LR and HR crops in [0, 1], or HR as ``uint8``.

    Crops of different scales have ``side_B`` too, see :class:`pcsr_lightning.data.TrainBatch`.
    """

    lr_B3hw: Tensor
    hr_B3HW: Tensor


class ValPicture(Protocol):
    """What a validation step gets: a full image."""

    lr: Tensor
    hr: Tensor
    name: str


def check_train_batch(batch: object) -> None:
    """Refuses a training batch without the tensors that a stage trains on.

    Raises:
        ConfigError: says what it must have, and what it is.
    """
    names = ("lr_B3hw", "hr_B3HW")
    _check(batch, names, "training batch", "TrainBatch(lr_B3hw, hr_B3HW)", integers=True)
    if getattr(batch, "side_B", None) is not None:
        _check_sides(cast(TrainBatch, batch))


def _check_sides(batch: TrainBatch) -> None:
    side_B = getattr(batch, "side_B", None)
    least, most = max(batch.lr_B3hw.shape[-2:]), min(batch.hr_B3HW.shape[-2:])
    found = type(side_B).__name__
    if isinstance(side_B, Tensor):
        found = f"{side_B.dtype} of shape {tuple(side_B.shape)}"
        if side_B.dtype == torch.int64 and side_B.shape == (len(batch.hr_B3HW),):
            # Not on a GPU, which would have to be waited for.
            if side_B.device.type != "cpu" or ((side_B >= least) & (side_B <= most)).all():
                return
            found = f"{side_B.tolist()}"
    raise ConfigError(
        "data: side_B of a training batch is the HR side of each crop, torch.int64 of shape "
        f"({len(batch.hr_B3HW)},) from {least} to {most}, or None; it is {found}"
    )


def check_val_picture(batch: object) -> None:
    """Refuses a validation picture without LR and HR pixels or without a name.

    Raises:
        ConfigError: says what it must have, and what it is.
    """
    shown = "ValPicture(lr, hr, name)"
    _check(batch, ("lr", "hr"), "validation picture", shown)
    if not isinstance(getattr(batch, "name", None), str):
        raise ConfigError(f"data: a validation picture needs a name, a text, as {shown} has it")


def common_size(batch: TrainBatch, what: str, remedy: str = "") -> tuple[int, int]:
    """``(H, W)`` of a training batch's HR crops.

    Args:
        batch: a training batch.
        what: needs crops of one size, for the message.
        remedy: another setting that does not, followed by "or".

    Raises:
        ConfigError: the crops have sizes of their own.
    """
    if getattr(batch, "side_B", None) is not None:
        raise ConfigError(
            f"data.mix_scales=true gives each crop a scale of its own, which {what} cannot "
            f"train on: set {remedy}data.mix_scales=false"
        )
    return batch.hr_B3HW.shape[-2], batch.hr_B3HW.shape[-1]


def as_float(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1]: ``uint8`` ones divided by 255, others as they are."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def _check(
    batch: object, names: tuple[str, str], what: str, example: str, integers: bool = False
) -> None:
    more = f" ({names[1]} may be torch.uint8)" if integers else ""
    for name in names:
        value = getattr(batch, name, None)
        kinds = (torch.float32, torch.uint8) if integers and name == names[1] else (torch.float32,)
        if not isinstance(value, Tensor):
            reason = f"this one is {_described(batch)}"
        elif value.ndim != 4 or value.shape[1] != 3 or value.dtype not in kinds:
            reason = f"{name} is {value.dtype} of shape {tuple(value.shape)}"
        else:
            continue
        raise ConfigError(
            f"data: a {what} must have {names[0]} and {names[1]}, torch.float32 of shapes "
            f"(B, 3, h, w) and (B, 3, H, W) in [0, 1]{more}; {reason}: give it as "
            f"pcsr_lightning.data.{example}"
        )


def _described(batch: object) -> str:
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} of {', '.join(map(str, batch))}"
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} of {', '.join(type(item).__name__ for item in batch)}"
    return f"a {type(batch).__name__}"

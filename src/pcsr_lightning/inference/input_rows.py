"""Pictures whose rows become floating point, and free of the mean, only when they are wanted.

A picture of whole numbers takes a quarter or half of what floating point does, and no second copy
of it is made without the mean.

Legend: B batch, h w LR size, r rows.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class PictureRows(Protocol):
    """A picture that gives any of its rows.

    Attributes:
        size: ``(h, w)``.
    """

    @property
    def size(self) -> tuple[int, int]: ...

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows ``[top, bottom)``: ``(3, r, w)``, float32 in [0, 1], the same whenever asked for."""

    def unseen(self, top: int, bottom: int) -> Tensor | None:
        """Pixels whose result nobody sees, ``(r, w)`` bool; ``None`` if all are seen.

        They go to the lightest class, whatever the routing.
        """


class InputRows:
    """What a network is fed.

    Args:
        picture: ``(B, 3, h, w)``; or a single picture that gives its rows.
        device: where rows are wanted; that of ``picture`` if it is a tensor.
        mean_3: is taken from every pixel.
        unseen_hw: of a tensor, see :meth:`PictureRows.unseen`.

    Attributes:
        shape: ``(B, 3, h, w)``.
        device: where its rows are.
    """

    def __init__(
        self,
        picture: Tensor | PictureRows,
        device: torch.device | None = None,
        mean_3: Tensor | None = None,
        unseen_hw: Tensor | None = None,
    ) -> None:
        self._picture, self._mean, self._unseen = picture, mean_3, unseen_hw
        if isinstance(picture, Tensor):
            self.shape, self.device = picture.shape, picture.device
        else:
            self.shape = torch.Size((1, 3, *picture.size))
            self.device = torch.device("cpu") if device is None else device

    def __len__(self) -> int:
        return int(self.shape[0])

    def less(self, mean_3: Tensor) -> InputRows:
        """The same pictures without their mean."""
        return InputRows(self._picture, self.device, mean_3.float(), self._unseen)

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows ``[top, bottom)``: ``(B, 3, r, w)``."""
        if isinstance(self._picture, Tensor):
            x = self._picture[:, :, top:bottom]
        else:
            x = self._picture.rows(top, bottom)[None].to(self.device)
        return x if self._mean is None else x - self._mean[:, None, None]

    def unseen(self, top: int, bottom: int) -> Tensor | None:
        """As that of :class:`PictureRows`."""
        if isinstance(self._picture, Tensor):
            return None if self._unseen is None else self._unseen[top:bottom]
        unseen_rw = self._picture.unseen(top, bottom)
        return None if unseen_rw is None else unseen_rw.to(self.device)


def as_input(picture: Tensor | InputRows) -> InputRows:
    """Pictures as what gives their rows."""
    return InputRows(picture) if isinstance(picture, Tensor) else picture

"""Errors of one picture under many routings, exact, without making any of the pictures.

A pixel's error is its class's, the same for every routing. Only pixels that refinement touches
depend on their neighbours' classes: those few are put together one by one.

Legend: M classes, H W HR size, n rows of a strip and those kept of the last, K pixels that
refinement touches, x y offsets of neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pcsr_lightning.images.comparison import eight_bit, shave
from pcsr_lightning.routing.refine import touched


class RoutedErrors:
    """Sums of squared differences from the ground truth on the 0..255 scale.

    Args:
        truth_13HW: bytes, or float32 in [0, 1].
        border: pixels that are left out on every side.
        refines: of each routing, whether its picture is refined (Sec. 3.4).

    Attributes:
        totals: of each routing, whole numbers.
    """

    def __init__(self, truth_13HW: Tensor, border: int, refines: Sequence[bool]) -> None:
        self._truth_3HW, self._border, self._refines = truth_13HW[0], border, refines
        self.totals = [0.0] * len(refines)
        self._top = 0
        self._kept: tuple[list[Tensor], Tensor] | None = None

    @property
    def values(self) -> int:
        """How many numbers a total is the sum of."""
        return shave(self._truth_3HW, self._border).numel()

    def add(self, classes: Sequence[Tensor], sr_3MnW: Tensor) -> None:
        """Takes the next rows.

        Refinement needs the row below a pixel: the last row waits for the next strip.

        Args:
            classes: under each routing, ``(n, W)``, uint8.
            sr_3MnW: each class's pixels, where a routing asks for it.
        """
        if self._kept is not None:
            classes = [torch.cat(pair) for pair in zip(self._kept[0], classes, strict=True)]
            sr_3MnW = torch.cat([self._kept[1], sr_3MnW], dim=2)
        H, W = self._truth_3HW.shape[-2:]
        top, n, border = self._top, sr_3MnW.shape[2], self._border
        stop = n if top + n == H else n - 1
        first, last = max(min(top, 1), border - top), min(stop, H - border - top)
        if first < last:
            part = (slice(first, last), slice(border, W - border))
            truth_3nW = self._truth_3HW[:, top : top + n].to(sr_3MnW.device)
            self._add(classes, sr_3MnW, truth_3nW, part)
        # A row that is done, but a neighbour, and the one that waits.
        keep = max(0, stop - 1)
        self._kept = [x_nW[keep:].clone() for x_nW in classes], sr_3MnW[:, :, keep:].clone()
        self._top += keep

    def _add(
        self,
        classes: Sequence[Tensor],
        sr_3MnW: Tensor,
        truth_3nW: Tensor,
        part: tuple[slice, slice],
    ) -> None:
        """Adds what the compared part of a strip contributes."""
        truth_31nW = eight_bit(truth_3nW)[:, None]
        error_MnW = (eight_bit(sr_3MnW[..., *part]) - truth_31nW[..., *part]).square_().sum(dim=0)
        lightest, more_MnW = _total(error_MnW[-1]), error_MnW[:-1] - error_MnW[-1]
        known: dict[bool, tuple[Tensor, float]] = {}
        for i, (class_nW, refines) in enumerate(zip(classes, self._refines, strict=True)):
            last = known.get(refines)
            # Routings beside each other often choose alike: extreme k, and easy rows.
            if last is None or not torch.equal(last[0], class_nW):
                total = lightest
                for j, more_nW in enumerate(more_MnW):
                    total += _total(more_nW * (class_nW[part] == j))
                if refines:
                    total += _gain(class_nW, sr_3MnW, truth_31nW[:, 0], part)
                last = known[refines] = class_nW, total
            self.totals[i] += last[1]


def _gain(class_nW: Tensor, sr_3MnW: Tensor, truth_3nW: Tensor, part: tuple[slice, slice]) -> float:
    """By how much refinement raises the error, mostly below 0."""
    compared_nW = touched(class_nW, sr_3MnW.shape[1])[part]
    place_K = compared_nW.flatten().nonzero()[:, 0]
    if not len(place_K):
        return 0.0
    (n, W), compared_W = class_nW.shape, compared_nW.shape[1]
    place_K += part[0].start * W + part[1].start + place_K // compared_W * (W - compared_W)
    step_3 = torch.arange(-1, 2, device=place_K.device)
    place_yxK = place_K + step_3[:, None, None] * W + step_3[:, None]
    near_3yxK = _picked(sr_3MnW, class_nW, place_yxK)
    # In the order of refine(): floating-point sums depend on it.
    row_3xK = near_3yxK[:, 0] + near_3yxK[:, 1] + near_3yxK[:, 2]
    mean_3K = (row_3xK[:, 0] + row_3xK[:, 1] + row_3xK[:, 2]) * (1 / 9)
    truth_3K = truth_3nW.reshape(3, n * W).index_select(1, place_K)
    own_3K = near_3yxK[:, 1, 1]
    after_3K, before_3K = ((eight_bit(x) - truth_3K).square_() for x in (mean_3K, own_3K))
    return _total(after_3K) - _total(before_3K)


def _picked(sr_3MnW: Tensor, class_nW: Tensor, place: Tensor) -> Tensor:
    """Pixels of the routed picture: ``(3, *place.shape)``."""
    flat = place.flatten()
    source = class_nW.flatten().index_select(0, flat).long() * class_nW.numel() + flat
    return sr_3MnW.reshape(3, -1).index_select(1, source).view(3, *place.shape)


def _total(whole_numbers: Tensor) -> float:
    """The sum, exact; several times as fast as ``sum(dtype=torch.float64)``."""
    return float(whole_numbers.double().sum())

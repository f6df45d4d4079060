"""Which class each LR pixel goes to under a budget: Eq. 10 with the smallest ``k`` it pays for.

All HR pixels of an LR pixel take one class. Within an LR pixel, scores differ by little more than a
fixed pattern of the sub-positions; a cutoff in between would draw that pattern as a grid on every
flat area.

Legend: B batch, M classes, T = M - 1 thresholds, c = T + 1 with the number of HR pixels, h w LR
size, r LR rows of a chunk; thresholds of any pixels are ``(B, T, H, W)``. Class 0 is the heaviest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.routing.adm import CHUNK

HALF = 16
"""The cutoff's 32 bits are found in two halves, each by one histogram."""
SMALLEST = 1e-12
"""Two classes whose costs are closer than this part of the range count as this far apart."""


def assign_by_budget(score_Bchw: Tensor, macs_M: Sequence[float], limit: float) -> Tensor:
    """Eq. 10 with the smallest ``k`` whose cost fits a limit, found on each picture by itself.

    The hardest LR pixels are paid for first. Those that become heavier at the very same ``k`` (in a
    constant picture all of them do) are upgraded in raster order until the next would cost too
    much, so that less than one LR pixel's upgrade is left over. A larger limit never makes a pixel
    lighter.

    The scores are read three times, in chunks of rows, and besides the result no memory grows with
    the picture.

    Args:
        score_Bchw: the class thresholds of each LR pixel (means of :func:`class_thresholds` over
            its HR pixels), and behind them the number of its HR pixels; float32.
        macs_M: what one HR pixel of each class costs, in any unit, never rising.
        limit: what the pixels of one picture may cost together, in that unit. Below the cost of
            all pixels in the lightest class, that is what comes out.

    Returns:
        Classes ``(B, h, w)``, uint8.

    Raises:
        ConfigError: ``limit`` is NaN, or the costs do not fit the scores or rise.
    """
    check_macs(int(score_Bchw.shape[1]), macs_M, limit)
    return torch.stack([_assign(score_chw, macs_M, limit) for score_chw in score_Bchw])


def class_thresholds(logits_BMHW: Tensor, costs_M: Tensor) -> Tensor:
    """Up to which ``k`` a pixel takes class ``j`` or a heavier one, ``j = 0 .. M - 2``.

    By Eq. 10 it does where some class ``i <= j`` beats every ``m > j``, that is up to
    ``max_i min_m (logit_i - logit_m) / (log cost_i - log cost_m)``; it takes the class whose
    number is how many of these are below ``k``. They never fall as ``j`` rises. Here they are in
    units of ``1 / (log cost_0 - log cost_(M-1))``: for ``M = 2``, the difference of the logits.

    Returns:
        ``(B, M - 1, H, W)``, float32; for a single picture without ``B`` likewise.
    """
    return best_trades(logits_BMHW, costs_M.double().log().tolist())


def best_trades(value_BMHW: Tensor, scale_M: Sequence[float]) -> Tensor:
    """Up to which price a pixel takes class ``j`` or a heavier one, ``j = 0 .. M - 2``.

    The class is the one with the highest ``value - price * scale``; of equals, the lightest. So
    the thresholds are those of :func:`class_thresholds`, with any values and scales.

    Args:
        value_BMHW: how good each class is.
        scale_M: what each class takes, never rising.

    Returns:
        ``(B, M - 1, H, W)``, float32, in units of ``1 / (scale_0 - scale_(M-1))``.
    """
    values = value_BMHW.float()
    span = scale_M[0] - scale_M[-1]
    M, parts = len(scale_M), values.unbind(-3)
    out: list[Tensor] = []
    for j in range(M - 1):
        best: Tensor | None = None
        for i in range(j + 1):
            worst: Tensor | None = None
            for m in range(j + 1, M):
                gap = (scale_M[i] - scale_M[m]) / span if span > 0 else 0.0
                ratio = (parts[i] - parts[m]) / max(gap, SMALLEST)
                worst = ratio if worst is None else torch.minimum(worst, ratio)
            assert worst is not None
            best = worst if best is None else torch.maximum(best, worst)
        assert best is not None
        # Rounding must not let a later threshold fall below an earlier one.
        out.append(torch.maximum(best, out[-1]) if out else best)
    return torch.stack(out, dim=-3)


def check_macs(num_classes: int, macs_M: Sequence[float], limit: float) -> None:
    """Checks costs and a limit.

    Raises:
        ConfigError: see :func:`assign_by_budget`.
    """
    if num_classes < 2 or len(macs_M) != num_classes:
        raise ConfigError(
            f"a budget needs the scores and the multiply-adds of the same two or more classes, "
            f"not of {num_classes} and {len(macs_M)}"
        )
    if any(b > a for a, b in pairwise(macs_M)):
        raise ConfigError(f"classes must be sorted heaviest first; their costs are {list(macs_M)}")
    if math.isnan(limit):
        raise ConfigError("the limit of a budget must be a number, not nan")


def _assign(score_chw: Tensor, macs_M: Sequence[float], limit: float) -> Tensor:
    """One picture: the cutoff, the class map on its light side, then the ties."""
    h, w = score_chw.shape[-2:]
    out_hw = torch.empty(h, w, dtype=torch.uint8, device=score_chw.device)
    left = limit - float(score_chw[-1].sum(dtype=torch.float64)) * macs_M[-1]
    if left < 0:
        return out_hw.fill_(len(macs_M) - 1)
    found = _cutoff(score_chw, macs_M, left)
    if found is None:
        return out_hw.zero_()
    cutoff, left = found
    prices_M = torch.tensor(list(macs_M), dtype=torch.float64, device=score_chw.device)
    for rows in _chunks(h, w):
        *threshold_T, area_rw = score_chw[:, rows]
        ordered_Trw = ordered(torch.stack(threshold_T))
        out_hw[rows], left = classes_at(ordered_Trw, area_rw, cutoff, prices_M, left)
    return out_hw


def classes_at(
    ordered_Trw: Tensor, area_rw: Tensor, cutoff: int, prices_M: Tensor, left: float
) -> tuple[Tensor, float]:
    """The classes of the next rows in raster order, and what is left after them.

    Args:
        ordered_Trw: class thresholds as integers, see :func:`ordered`.
        area_rw: how many HR pixels an LR pixel has.
        cutoff: the threshold at which not all pixels can be paid.
        prices_M: what an HR pixel of each class costs, float64.
        left: what pixels at the cutoff may still cost.

    Returns:
        Classes ``(r, w)``, uint8; and ``left`` less what was paid, below 0 once no more is.
    """
    out_rw = (ordered_Trw <= cutoff).sum(dim=0, dtype=torch.uint8)
    if left > 0:
        heavy_rw = (ordered_Trw < cutoff).sum(dim=0, dtype=torch.uint8)
        left = _upgrade(out_rw.view(-1), heavy_rw.view(-1), area_rw.flatten(), prices_M, left)
    return out_rw, left


def _upgrade(
    out_N: Tensor, heavy_N: Tensor, area_N: Tensor, prices_M: Tensor, left: float
) -> float:
    """Upgrades pixels in their order while they can be paid; what is then left, or -1 for done."""
    tied_K = (heavy_N != out_N).nonzero().squeeze(1)
    if not len(tied_K):
        return left
    before, after = out_N[tied_K].int(), heavy_N[tied_K].int()
    paid_K = ((prices_M[after] - prices_M[before]) * area_N[tied_K]).cumsum(0)
    count = int((paid_K <= left).sum())
    out_N[tied_K[:count]] = heavy_N[tied_K[:count]]
    if count < len(tied_K):
        return -1.0
    return left - float(paid_K[-1])


def _cutoff(score_chw: Tensor, macs_M: Sequence[float], left: float) -> tuple[int, float] | None:
    """The ordered threshold at and below which not all pixels can be paid, and what is left once
    those above are; ``None`` if everything can be paid."""
    steps_T = torch.tensor([a - b for a, b in pairwise(macs_M)], dtype=torch.float64)
    high = first_too_dear(_histogram(score_chw, None), steps_T, left)
    if high is None:
        return None
    low = first_too_dear(_histogram(score_chw, high[0]), steps_T, high[1])
    assert low is not None  # the same pixels, and their sum is exact
    return ((high[0] - 2 ** (HALF - 1)) << HALF) + low[0], low[1]


def _histogram(score_chw: Tensor, high: int | None) -> Tensor:
    """How many HR pixels' thresholds have each upper half, or each lower half given an upper one:
    ``(T, N)``, int64."""
    shape = (len(score_chw) - 1, 2**HALF)
    counts_TN = torch.zeros(shape, dtype=torch.int64, device=score_chw.device)
    for rows in _chunks(*score_chw.shape[-2:]):
        *threshold_T, area_rw = score_chw[:, rows]
        for threshold_rw, counts_N in zip(threshold_T, counts_TN, strict=True):
            ordered_rw = ordered(threshold_rw)
            bins, area = (ordered_rw >> HALF) + 2 ** (HALF - 1), area_rw
            if high is not None:
                inside_rw = bins == high
                bins, area = ordered_rw[inside_rw] & (2**HALF - 1), area_rw[inside_rw]
            counts_N.scatter_add_(0, bins.flatten().long(), area.flatten().long())
    return counts_TN.cpu()


def first_too_dear(counts_TN: Tensor, steps_T: Tensor, left: float) -> tuple[int, float] | None:
    """The highest bin that cannot be paid whole, and what is left after those above it."""
    # From the top. Multiply-adds are multiples of a half: sums below 2^52 are exact.
    paid_N = (counts_TN.double() * steps_T[:, None]).sum(0).flip(0).cumsum(0)
    above = int((paid_N <= left).sum())
    if above == len(paid_N):
        return None
    return len(paid_N) - 1 - above, left - (float(paid_N[above - 1]) if above else 0.0)


def ordered(values: Tensor) -> Tensor:
    """Float32 numbers as int32 numbers that compare alike."""
    bits = (values + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _chunks(height: int, width: int) -> Iterator[slice]:
    rows = max(1, CHUNK // width)
    for top in range(0, height, rows):
        yield slice(top, min(height, top + rows))

"""Which class each pixel goes to by ``k``: Eq. 10.

Legend: B batch, M classes, H W HR size. Class 0 is the heaviest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError

SAME_COST = 1e-9
"""Classes whose logarithms of costs differ by less are never told apart by ``k``."""


def assign_by_k(logits_BMHW: Tensor, costs_M: Tensor, k: float) -> Tensor:
    """``argmax_j p_j / cost_j ** k`` (Eq. 10), as ``argmax_j logit_j - k log cost_j``.

    The softmax divides every class of a pixel by the same number, so the logits decide alike, and
    no power can overflow. Ties go to the heavier class.

    Args:
        logits_BMHW: the classifier's output before the softmax.
        costs_M: from :func:`class_costs`.
        k: lower sends more pixels to heavier classes; 0 takes the most probable class.

    Returns:
        Classes ``(B, H, W)``, uint8.

    Raises:
        ConfigError: ``k`` is not finite.
    """
    if not math.isfinite(k):
        raise ConfigError(f"k must be a finite number, not {k}")
    bias_M = logit_biases(costs_M, k)
    first, *others = logits_BMHW.unbind(dim=1)
    best_BHW = first + bias_M[0]
    class_BHW = torch.zeros_like(first, dtype=torch.uint8)
    # Class by class: several times as fast as argmax over a dimension that is not the last.
    for j, (logit_BHW, bias) in enumerate(zip(others, bias_M[1:], strict=True), start=1):
        score_BHW = logit_BHW + bias
        class_BHW.masked_fill_(score_BHW > best_BHW, j)
        if j < len(others):
            torch.maximum(best_BHW, score_BHW, out=best_BHW)
    return class_BHW


def logit_biases(costs_M: Tensor, k: float) -> list[float]:
    """What Eq. 10 adds to the logit of each class before the largest is taken."""
    biases: list[float] = (-k * costs_M.log()).tolist()
    return biases


def k_range(logits_BMHW: Tensor, costs_M: Tensor) -> tuple[float, float]:
    """Below the first ``k`` every pixel takes the heaviest class, above the second the lightest.

    Raises:
        ConfigError: all classes cost the same, so that ``k`` decides nothing.
    """
    bias_M = costs_M.double().log()
    # Class 0 beats j while k < (l_0 - l_j) / (log c_0 - log c_j); the last beats j above
    # (l_j - l_last) / (log c_j - log c_last).
    l_MN = logits_BMHW.double().transpose(0, 1).flatten(1)
    from_first, to_last = (bias_M[0] - bias_M).tolist(), (bias_M - bias_M[-1]).tolist()
    low = [float((l_MN[0] - l_MN[j]).min()) / g for j, g in enumerate(from_first) if g > SAME_COST]
    high = [float((l_MN[j] - l_MN[-1]).max()) / g for j, g in enumerate(to_last) if g > SAME_COST]
    if not low or not high:
        raise ConfigError("all classes of this model cost the same, k decides nothing")
    return min(low), max(high)

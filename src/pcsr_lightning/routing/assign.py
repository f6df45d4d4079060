"""Which class each pixel goes to: by ``k`` (Eq. 10) or by the picture's own statistics (ADM).

Legend: B batch, M classes, H W HR size. Class 0 is the heaviest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError

BINS = 4096
"""Histogram bins of ADM's clustering: a threshold is off by at most 1/8192 of the range."""
TOLERANCE = 0.01
"""Clustering ends with the step in which no centroid moves further than this."""
MAX_ITERATIONS = 100
CHUNK = 2**20
"""Pixels looked at together: what is worked out on the way takes no more memory than they need."""


def heavy_classes(num_classes: int) -> int:
    """How many classes count as heavy: ``floor((M + 1) / 2)`` (Sec. 3.4)."""
    return (num_classes + 1) // 2


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
    bias_M = (-k * costs_M.log()).tolist()
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


def difficulty(logits_BMHW: Tensor) -> Tensor:
    """The probability of the heavy half, ``sum of p_j for j < floor((M+1)/2)``: ``(B, H, W)``."""
    return logits_BMHW.softmax(dim=1)[:, : heavy_classes(logits_BMHW.shape[1])].sum(dim=1)


def assign_adaptive(logits_BMHW: Tensor) -> Tensor:
    """Adaptive Decision Making: each picture's difficulties are clustered into ``M`` groups.

    Difficulties are min-max normalised over the picture, then grouped by one-dimensional k-means
    (Lloyd's algorithm on a histogram); the most difficult group goes to ``U_0``. Centroids start
    uniformly, at ``j / M``, so the result is deterministic, and rest once none moves by more than
    :data:`TOLERANCE`. A picture of one single difficulty has no groups: it goes to the lightest
    class. Appendix A.

    The published code starts at 0 and the mean and has the same tolerance. Going on to the fixed
    point would lower its share of heavy pixels by up to 2.7 percent of the picture; stopping as it
    does stays within 1.2.

    Returns:
        Classes ``(B, H, W)``, uint8.
    """
    return assign_by_difficulty(difficulty(logits_BMHW), logits_BMHW.shape[1])


def assign_by_difficulty(difficulty_BHW: Tensor, num_classes: int) -> Tensor:
    """:func:`assign_adaptive` from what :func:`difficulty` gives, which takes less to keep."""
    return torch.stack([_cluster(d_HW, num_classes) for d_HW in difficulty_BHW])


def _cluster(d_HW: Tensor, num_classes: int) -> Tensor:
    low, high = d_HW.min(), d_HW.max()
    if not bool(high > low):
        return torch.full_like(d_HW, num_classes - 1, dtype=torch.uint8)
    # A few rows at a time: groups are counted with 8 bytes for each pixel.
    chunks = torch.split(d_HW, max(1, CHUNK // d_HW.shape[1]))
    counts = torch.zeros(BINS, dtype=torch.float64)
    for d_nW in chunks:
        unit_nW = (d_nW - low) / (high - low)
        counts += torch.histc(unit_nW.float(), bins=BINS, min=0.0, max=1.0).double().cpu()
    thresholds = kmeans_thresholds(counts, num_classes)
    found = [groups((d_nW - low) / (high - low), thresholds, num_classes) for d_nW in chunks]
    return torch.cat(found)


def groups(unit_HW: Tensor, thresholds: Tensor, num_classes: int) -> Tensor:
    """Difficulties in parts of their range to classes, by what :func:`kmeans_thresholds` gives."""
    # bucketize counts the thresholds below a value: 0 for the easiest group.
    group_HW = torch.bucketize(unit_HW, thresholds.to(unit_HW))
    return (num_classes - 1 - group_HW).to(torch.uint8)


def kmeans_thresholds(counts_N: Tensor, num_clusters: int) -> Tensor:
    """The ``num_clusters - 1`` rising borders between the clusters of a histogram over [0, 1].

    Args:
        counts_N: how many values lie in each of ``N`` equal bins.
        num_clusters: how many groups.
    """
    N = len(counts_N)
    centre_N = (torch.arange(N, dtype=counts_N.dtype) + 0.5) / N
    mass = torch.cat([counts_N.new_zeros(1), counts_N.cumsum(0)])
    moment = torch.cat([counts_N.new_zeros(1), (counts_N * centre_N).cumsum(0)])
    centroids = torch.arange(num_clusters, dtype=counts_N.dtype) / num_clusters
    for _ in range(MAX_ITERATIONS):
        edges = (centroids[1:] + centroids[:-1]) / 2
        cut = torch.bucketize(edges, centre_N)
        cut = torch.cat([cut.new_zeros(1), cut, cut.new_full((1,), N)])
        inside = mass[cut[1:]] - mass[cut[:-1]]
        sums = moment[cut[1:]] - moment[cut[:-1]]
        # An empty cluster keeps its place.
        moved = torch.where(inside > 0, sums / inside.clamp_min(1), centroids)
        step = float((moved - centroids).abs().max())
        centroids = moved
        if step <= TOLERANCE:
            break
    return (centroids[1:] + centroids[:-1]) / 2

"""Adaptive Decision Making (Appendix A): k-means of a picture's own difficulties.

Legend: B batch, M classes, H W HR size, n HR rows of a chunk, N bins. Class 0 is the heaviest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pcsr_lightning.routing.refine import heavy_classes

BINS = 4096
"""Histogram bins of ADM's clustering: a threshold is off by at most 1/8192 of the range."""
TOLERANCE = 0.01
"""Clustering ends with the step in which no centroid moves further than this."""
MAX_ITERATIONS = 100
CHUNK = 2**20
"""Pixels in work together, which bounds the memory of intermediate results."""


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
    counts = torch.zeros(BINS, dtype=torch.float64, device=d_HW.device)
    for d_nW in chunks:
        unit_nW = (d_nW - low) / (high - low)
        counts += torch.histc(unit_nW.float(), bins=BINS, min=0.0, max=1.0)
    thresholds = kmeans_thresholds(counts.cpu(), num_classes)
    found = [classes_of((d_nW - low) / (high - low), thresholds, num_classes) for d_nW in chunks]
    return torch.cat(found)


def classes_of(unit_HW: Tensor, thresholds: Tensor, num_classes: int) -> Tensor:
    """The classes of difficulties scaled to [0, 1], by the borders of :func:`kmeans_thresholds`."""
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

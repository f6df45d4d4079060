"""Eq. 10, ADM and refinement against direct readings of their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.routing.adm import assign_adaptive, difficulty, kmeans_thresholds
from pcsr_lightning.routing.by_k import assign_by_k
from pcsr_lightning.routing.cost import class_costs
from pcsr_lightning.routing.refine import refine

seeds = st.integers(0, 2**31)
classes = st.integers(2, 6)


def random_logits(seed: int, num_classes: int, h: int = 9, w: int = 11) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(2, num_classes, h, w, generator=generator)


@given(seed=seeds, num_classes=classes, k=st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_by_k_is_the_equation(seed: int, num_classes: int, k: float) -> None:
    logits = random_logits(seed, num_classes).double()
    costs = class_costs([float(2 * num_classes - j) for j in range(num_classes)])
    scores = logits.softmax(1) / (costs**k)[:, None, None]
    top = scores.topk(2, dim=1).values
    clear = top[:, 0] > top[:, 1] * (1 + 1e-9)
    found = assign_by_k(logits, costs, k)
    assert found.dtype == torch.uint8
    assert torch.equal(found[clear].long(), scores.argmax(1)[clear])


@given(seed=seeds, num_classes=classes, low=st.floats(-40, 40), step=st.floats(0, 40))
@settings(max_examples=60, deadline=None)
def test_raising_k_never_raises_the_cost(
    seed: int, num_classes: int, low: float, step: float
) -> None:
    logits = random_logits(seed, num_classes)
    costs = class_costs([float(2 * num_classes - j) for j in range(num_classes)])
    before, after = assign_by_k(logits, costs, low), assign_by_k(logits, costs, low + step)
    assert bool((after >= before).all())


def test_extreme_k_sends_all_to_one_class() -> None:
    logits = random_logits(0, 3)
    costs = class_costs([3.0, 2.0, 1.0])
    assert assign_by_k(logits, costs, -1e6).max() == 0
    assert assign_by_k(logits, costs, 1e6).min() == 2
    for k in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="finite"):
            assign_by_k(logits, costs, k)


def lloyd(values: np.ndarray, num_clusters: int, tolerance: float) -> np.ndarray:
    """Plain k-means on single values, from j / M until no centroid moves further: the borders."""
    centroids = np.arange(num_clusters) / num_clusters
    moved = 1.0
    while moved > tolerance:
        before = centroids.copy()
        group = np.abs(values[:, None] - centroids).argmin(1)
        for c in range(num_clusters):
            if (group == c).any():
                centroids[c] = values[group == c].mean()
        moved = np.abs(centroids - before).max()
    return (centroids[1:] + centroids[:-1]) / 2


@given(seed=seeds, num_classes=st.integers(2, 4))
@settings(max_examples=60, deadline=None)
def test_adaptive_is_kmeans_of_the_difficulty(seed: int, num_classes: int) -> None:
    logits = random_logits(seed, num_classes, 24, 30)[:1]
    d = difficulty(logits)[0].flatten()
    unit = ((d - d.min()) / (d.max() - d.min())).numpy()
    # Centroids see values to 1/4096, borders cut them as they are.
    seen = (np.minimum(np.floor(unit * 4096), 4095) + 0.5) / 4096
    borders = lloyd(seen.astype(np.float64), num_classes, 0.01)
    found = num_classes - 1 - assign_adaptive(logits)[0].numpy().ravel()
    assert (found != np.searchsorted(borders, unit)).sum() <= 1


def test_difficulty_is_the_probability_of_the_heavy_half() -> None:
    prob = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15])
    heavy = difficulty(prob.log()[None, :, None, None])
    assert heavy.item() == pytest.approx(0.6)  # floor((5 + 1) / 2) = 3 classes


def test_adaptive_looks_at_each_picture_alone() -> None:
    logits = random_logits(1, 2)
    both = assign_adaptive(logits)
    assert torch.equal(both[0], assign_adaptive(logits[:1])[0])
    assert torch.equal(both[1], assign_adaptive(logits[1:])[0])


def test_a_picture_of_one_difficulty_goes_to_the_lightest_class() -> None:
    assert assign_adaptive(torch.zeros(1, 3, 4, 5)).unique().tolist() == [2]


def test_adaptive_finds_two_clear_groups() -> None:
    logits = torch.zeros(1, 2, 4, 8)
    logits[:, 0, :, :3] = 2.0  # three columns are hard
    found = assign_adaptive(logits)[0]
    assert (found[:, :3] == 0).all()
    assert (found[:, 3:] == 1).all()


def test_empty_clusters_keep_their_place() -> None:
    counts = torch.zeros(100, dtype=torch.float64)
    counts[0] = counts[99] = 5
    borders = kmeans_thresholds(counts, 4)
    assert bool((borders[1:] > borders[:-1]).all())


@given(seed=seeds, num_classes=classes, h=st.integers(1, 9), w=st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_refinement_pixel_by_pixel(seed: int, num_classes: int, h: int, w: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sr = torch.rand(1, 3, h, w, generator=generator)
    chosen = torch.randint(num_classes, (1, h, w), generator=generator, dtype=torch.uint8)
    expected = sr.clone()
    heavy = chosen[0] < (num_classes + 1) // 2
    for i in range(1, h - 1):
        for j in range(1, w - 1):
            around = (slice(i - 1, i + 2), slice(j - 1, j + 2))
            if not heavy[i, j] and heavy[around].any():
                expected[0, :, i, j] = sr[0, :, around[0], around[1]].mean(dim=(1, 2))
    before = sr.clone()
    assert (refine(sr, chosen, num_classes) - expected).abs().max() < 1e-6
    assert torch.equal(sr, before)


@given(seed=seeds, num_classes=classes)
@settings(max_examples=40, deadline=None)
def test_adaptive_does_not_care_where_pixels_lie(seed: int, num_classes: int) -> None:
    """Whatever tiles a picture is cut into: only the multiset of difficulties counts."""
    logits = random_logits(seed, num_classes, 16, 12)[:1]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(16 * 12, generator=generator)
    whole = assign_adaptive(logits)
    moved = assign_adaptive(logits.flatten(2)[:, :, order].reshape(1, num_classes, 12, 16))
    assert torch.equal(whole.flatten()[order], moved.flatten())
    assert torch.equal(whole, assign_adaptive(logits))


@given(
    value=st.floats(-(2.0**100), 2.0**100, allow_subnormal=False),
    spread=st.sampled_from([0.0, 1e-6, 2.0**100]),
    seed=seeds,
)
@settings(max_examples=60, deadline=None)
def test_extreme_logits_still_give_every_pixel_one_class(
    value: float, spread: float, seed: int
) -> None:
    logits = value + spread * random_logits(seed, 3)
    costs = class_costs([3.0, 2.0, 1.0])
    for found in (assign_adaptive(logits), assign_by_k(logits, costs, 0.5)):
        assert found.dtype == torch.uint8
        assert found.shape == (2, 9, 11)
        assert found.max() <= 2

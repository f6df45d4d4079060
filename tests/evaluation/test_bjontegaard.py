"""BD-PSNR and BD-rate against another package and against plain numerical integration."""

import math
from collections.abc import Sequence

import bjontegaard as independent
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pcsr_lightning.evaluation.bjontegaard import Point, bjontegaard_difference, efficient

CHEAP = [(19.2, 25.91), (22.5, 26.02), (31.0, 26.19), (47.0, 26.26), (55.3, 26.27)]
COSTLY = [(28.1, 25.98), (35.0, 26.11), (52.0, 26.30), (64.0, 26.34)]


def package(anchor: Sequence[Point], other: Sequence[Point]) -> tuple[float, float]:
    """What PyPI's bjontegaard finds."""
    values = [column for curve in (anchor, other) for column in zip(*curve, strict=True)]
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    return (
        float(independent.bd_psnr(*values, **options)),
        float(independent.bd_rate(*values, **options)),
    )


def hermite(x: Sequence[float], y: Sequence[float], at: NDArray) -> NDArray:
    """Fritsch and Carlson's monotone interpolation, written from its definition."""
    h, d = np.diff(x), np.diff(y) / np.diff(x)
    slope = np.zeros(len(x))
    for i in range(1, len(x) - 1):
        if d[i - 1] * d[i] > 0:
            w1, w2 = 2 * h[i] + h[i - 1], h[i] + 2 * h[i - 1]
            slope[i] = (w1 + w2) / (w1 / d[i - 1] + w2 / d[i])
    for end, (a, b) in ((0, (0, 1)), (-1, (-1, -2))):
        if len(h) == 1:
            slope[end] = d[0]
            continue
        guess = ((2 * h[a] + h[b]) * d[a] - h[a] * d[b]) / (h[a] + h[b])
        if guess * d[a] <= 0:
            guess = 0.0
        elif d[a] * d[b] <= 0 and abs(guess) > 3 * abs(d[a]):
            guess = 3 * d[a]
        slope[end] = guess
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(h) - 1)
    t = (at - np.asarray(x)[i]) / h[i]
    y = np.asarray(y)
    return (
        (1 + 2 * t) * (1 - t) ** 2 * y[i]
        + t * (1 - t) ** 2 * h[i] * slope[i]
        + t**2 * (3 - 2 * t) * y[i + 1]
        + t**2 * (t - 1) * h[i] * slope[i + 1]
    )


def by_hand(anchor: Sequence[Point], other: Sequence[Point]) -> tuple[float, float]:
    """Both numbers from a hundred thousand sums."""
    rates = [[math.log10(g) for g, _ in curve] for curve in (anchor, other)]
    psnrs = [[p for _, p in curve] for curve in (anchor, other)]

    def mean(xs: list[list[float]], ys: list[list[float]]) -> float:
        low, high = max(x[0] for x in xs), min(x[-1] for x in xs)
        at = low + (high - low) * (np.arange(100_000) + 0.5) / 100_000
        return float((hermite(xs[1], ys[1], at) - hermite(xs[0], ys[0], at)).mean())

    return mean(rates, psnrs), 100 * (10 ** mean(psnrs, rates) - 1)


def test_against_independent_computations() -> None:
    found = bjontegaard_difference(CHEAP, COSTLY)
    assert (found.psnr, found.rate) == pytest.approx(package(CHEAP, COSTLY), rel=1e-9)
    assert (found.psnr, found.rate) == pytest.approx(by_hand(CHEAP, COSTLY), rel=1e-6)
    assert -0.1 < (found.psnr or 0) < 0 < (found.rate or 0) < 50  # COSTLY lies below CHEAP
    assert found.gflops == pytest.approx((28.1, 55.3))
    assert found.decibels == (25.98, 26.27)
    assert found.reason == ""


curves = st.lists(
    st.tuples(st.floats(0.02, 0.4), st.floats(0.01, 0.5)), min_size=3, max_size=8
).map(
    lambda steps: [
        (10 ** (1 + r), 25 + p)
        for r, p in np.cumsum(np.asarray([(0.0, 0.0), *steps]), axis=0).tolist()
    ]
)


@settings(max_examples=30, deadline=None)
@given(curves, curves)
def test_any_rising_curves(anchor: list[Point], other: list[Point]) -> None:
    found = bjontegaard_difference(anchor, other)
    assert (found.psnr, found.rate) == pytest.approx(package(anchor, other), rel=1e-6, abs=1e-9)
    assert (found.psnr, found.rate) == pytest.approx(by_hand(anchor, other), rel=1e-4, abs=1e-5)


def test_what_is_known_without_computing() -> None:
    """A curve shifted up by 0.3 dB, and one that takes twice the operations."""
    higher = bjontegaard_difference(CHEAP, [(g, p + 0.3) for g, p in CHEAP])
    assert higher.psnr == pytest.approx(0.3)
    for times, percent in ((2, 100), (0.5, -50)):
        other = bjontegaard_difference(CHEAP, [(times * g, p) for g, p in CHEAP])
        assert other.rate == pytest.approx(percent)
    same = bjontegaard_difference(CHEAP, reversed(CHEAP))
    assert (same.psnr, same.rate) == pytest.approx((0, 0), abs=1e-12)


def test_points_that_no_cheaper_one_matches() -> None:
    noisy = [*CHEAP, (60.0, 26.27), (70.0, 26.1), (22.5, 25.95), (30.0, 26.0)]
    assert efficient(noisy) == CHEAP
    assert bjontegaard_difference(noisy, COSTLY) == bjontegaard_difference(CHEAP, COSTLY)


def test_no_number_where_curves_do_not_overlap() -> None:
    above = bjontegaard_difference(CHEAP, [(g, p + 1) for g, p in CHEAP])
    assert above.psnr == pytest.approx(1)
    assert (above.rate, above.decibels) == (None, None)
    assert above.reason == "no common PSNR (25.91 to 26.27 and 26.91 to 27.27 dB)"
    costlier = bjontegaard_difference(CHEAP, [(10 * g, p) for g, p in CHEAP])
    assert (costlier.psnr, costlier.gflops) == (None, None)
    assert costlier.rate == pytest.approx(900)
    assert costlier.reason == "no common GFLOPs (19.2 to 55.3 and 192 to 553)"
    for points in ([], CHEAP[:1], [CHEAP[0], CHEAP[0]], [(20.0, 26.0), (30.0, 25.0)]):
        found = bjontegaard_difference(CHEAP, points)
        assert (found.psnr, found.rate) == (None, None)
        assert "two points" in found.reason

"""BD-PSNR and BD-rate between two curves of PSNR over GFLOPs.

G. Bjontegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33 (2001), with
GFLOPs in place of the bit rate. Over their logarithm, curves are interpolated by piecewise cubic
Hermite polynomials that keep their shape (PCHIP), as later practice has it in place of one cubic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Point = tuple[float, float]
"""GFLOPs and PSNR in dB."""


@dataclass(frozen=True)
class Difference:
    """How one curve lies to another, the anchor, on average where they overlap.

    Attributes:
        psnr: BD-PSNR in dB: how much higher its PSNR is at equal GFLOPs; ``None`` where no GFLOPs
            are common to both.
        rate: BD-rate in percent: how many more GFLOPs it takes for equal PSNR, negative if fewer;
            ``None`` where no PSNR is common to both.
        gflops: the range that ``psnr`` is the mean over.
        decibels: the range of PSNR that ``rate`` is the mean over.
        reason: why a number is missing.
    """

    psnr: float | None = None
    rate: float | None = None
    gflops: Point | None = None
    decibels: Point | None = None
    reason: str = ""


def bjontegaard_difference(anchor: Iterable[Point], other: Iterable[Point]) -> Difference:
    """BD-PSNR and BD-rate of ``other`` over ``anchor``.

    Only points count that no other point of their curve matches for fewer GFLOPs: beyond them a
    curve falls or is flat, and has no rate for a PSNR.

    Args:
        anchor: points in any order, finite, with positive GFLOPs.
        other: likewise.
    """
    curves = [efficient(anchor), efficient(other)]
    if min(map(len, curves)) < 2:
        return Difference(reason="a curve needs two points that differ in GFLOPs and PSNR")
    rates = [[float(np.log10(gflops)) for gflops, _ in curve] for curve in curves]
    psnrs = [[psnr for _, psnr in curve] for curve in curves]
    common_rates, common_psnrs = _common(rates), _common(psnrs)
    psnr = rate = gflops = None
    missing = []
    if common_rates is None:
        missing.append(f"no common GFLOPs ({_ranges([[g for g, _ in c] for c in curves])})")
    else:
        psnr = _mean_difference(rates, psnrs, common_rates)
        gflops = (10 ** common_rates[0], 10 ** common_rates[1])
    if common_psnrs is None:
        missing.append(f"no common PSNR ({_ranges(psnrs)} dB)")
    else:
        rate = 100 * (10 ** _mean_difference(psnrs, rates, common_psnrs) - 1)
    return Difference(psnr, rate, gflops, common_psnrs, ", ".join(missing))


def efficient(points: Iterable[Point]) -> list[Point]:
    """The points with more PSNR than all cheaper ones, by rising GFLOPs."""
    kept: list[Point] = []
    for gflops, psnr in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or psnr > kept[-1][1]:
            kept.append((gflops, psnr))
    return kept


def _common(values: Sequence[Sequence[float]]) -> Point | None:
    """The interval that all of these rising values cover; ``None`` if it is empty."""
    low, high = max(v[0] for v in values), min(v[-1] for v in values)
    return (low, high) if low < high else None


def _mean_difference(
    xs: Sequence[Sequence[float]], ys: Sequence[Sequence[float]], interval: Point
) -> float:
    """The mean of the second curve minus the first over an interval of ``x``."""
    # Here: it is slow to import, and most evaluations compare nothing.
    from scipy.interpolate import PchipInterpolator

    first, second = (
        float(PchipInterpolator(x, y).integrate(*interval)) for x, y in zip(xs, ys, strict=True)
    )
    return (second - first) / (interval[1] - interval[0])


def _ranges(values: Sequence[Sequence[float]]) -> str:
    return " and ".join(f"{min(v):.4g} to {max(v):.4g}" for v in values)

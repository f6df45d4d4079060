"""The ``k`` whose mean PSNR over a set meets a target, as the paper's tables compare methods."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.benchmark import check_fits, describe_setup
from pcsr_lightning.evaluation.pairs import Pair, Protocol, scale_pair
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.evaluation.reader import Reader
from pcsr_lightning.evaluation.routed_picture import RoutedPicture
from pcsr_lightning.inference import RoutingConfig
from pcsr_lightning.networks import PCSR, AnyNetwork, PatchRouted

_log = logging.getLogger(__name__)

CLOSE_ENOUGH = 0.0005
"""dB at which the search stops; a ``k`` within 0.005 dB counts as meeting the target."""
REACHED = 0.005
CHEAP = tuple(2.0**i for i in range(-2, 6))
"""The ``k`` of the first pass, besides all-light: most pixels take light classes, and a heavy class
need not compute the others."""
DEAR = (*(-(2.0**i) for i in range(5, -3, -1)), 0.0)
"""Those of a pass that is made only if the first does not lead to the target."""
NEAR = (0.0, *(sign * CLOSE_ENOUGH * 2**i for i in (1, 2, 4) for sign in (-1, 1)))
"""Those of a further pass: where a curve through all that is known misses the target by so much."""
SHARES = (0.25, 0.75)
"""And those in between neighbours of the target, as shares: the curve may have a step."""
EQUAL = 100.0
"""dB, in place of infinity."""
STEPS = 2**12
"""In so many steps a curve between two neighbours is looked through."""
MAX_PASSES = 8


@dataclass(frozen=True)
class KForTarget:
    """The ``k`` whose mean PSNR is closest to a target.

    Attributes:
        k: the closest found, to six significant digits.
        psnr: its mean PSNR over the set.
        all_light: the mean PSNR where ``k`` is so high that every pixel takes the lightest class.
        all_heavy: where it is so low that every pixel takes the heaviest; measured only if the
            target was not met by less.
        target: what was asked for.
    """

    k: float
    psnr: float
    all_light: float
    all_heavy: float | None
    target: float

    @property
    def reached(self) -> bool:
        """Whether the PSNR is within 0.005 dB of the target."""
        return abs(self.psnr - self.target) <= REACHED

    @property
    def description(self) -> str:
        """A sentence."""
        if self.reached:
            return f"target_psnr={self.target:g} is met by k = {self.k:g}: {self.psnr:.3f} dB"
        return (
            f"target_psnr={self.target:g} is out of reach on these pictures: all-light gives "
            f"{self.all_light:.3f} dB, all-heavy {self.all_heavy:.3f} dB; the nearest is k = "
            f"{self.k:g} with {self.psnr:.3f} dB"
        )


def check_target(
    model: AnyNetwork | None, routing: RoutingConfig, target_psnr: float | None
) -> None:
    """Refuses a target that makes no sense; ``model`` may not be loaded yet.

    Raises:
        ConfigError: not a positive number, another mode than ``k``, a given ``k``, or a model that
            has no classes to choose from.
    """
    if target_psnr is None:
        return
    if not (math.isfinite(target_psnr) and target_psnr > 0):
        raise ConfigError(f"target_psnr={target_psnr:g}: must be a positive number of dB")
    if routing.mode != "k":
        raise ConfigError(
            f"target_psnr={target_psnr:g}: this finds k, so routing.mode must be k, "
            f"not {routing.mode}"
        )
    if routing.value != 0:
        raise ConfigError(
            f"target_psnr={target_psnr:g} and routing.k={routing.value:g} exclude each other: "
            "give one of them"
        )
    if isinstance(model, PatchRouted):
        raise ConfigError(f"target_psnr={target_psnr:g} is for PCSR models; use sweep=k")
    if model is not None and model.num_classes == 1:
        raise ConfigError(
            f"target_psnr={target_psnr:g}: this model has one class only, no k changes its PSNR"
        )


def find_k(
    model: PCSR,
    folder: str | Path,
    target_psnr: float,
    scale: float | Sequence[float] = 4,
    routing: RoutingConfig | None = None,
    protocol: Protocol | str = Protocol.FULL_IMAGE,
    patch_size: int | None = None,
    progress: bool = False,
) -> KForTarget:
    """Finds the ``k`` whose mean PSNR over a folder is closest to a target.

    Goes through the pictures a few times, mostly two or three: a pass measures many ``k`` at once,
    each picture in strips, and the next pass looks closer. Nothing is kept of a picture but one
    number for each ``k``, so memory grows neither with their number nor, on full images, much with
    their size (:class:`~pcsr_lightning.evaluation.routed_picture.RoutedPicture`).

    PSNR mostly falls as ``k`` rises, not strictly: the closest ``k`` seen is kept. Where all that
    the first passes see lies on one side of the target, the nearer of all-heavy and all-light is
    the answer.

    Arguments that are not listed are those of :func:`benchmark`.

    Args:
        model: a PCSR with two classes or more.
        target_psnr: dB, RGB, mean over the pictures.
        routing: its cost rule and refinement are used; its ``k`` must be 0.

    Raises:
        ConfigError: a setting does not fit the model.
        PictureError: no such folder, or no picture in it.
        DataError: none of its pictures could be used.
    """
    routing, protocol, scales = routing or RoutingConfig(), Protocol(protocol), scale_pair(scale)
    check_fits(model, scales, routing, protocol)
    check_target(model, routing, target_psnr)
    layout = Layout.of(protocol, patch_size)
    reader = Reader(Path(folder), scales, protocol)
    setup = describe_setup(model, folder, scales, routing, protocol, layout)

    def measure(routings: Sequence[RoutingConfig]) -> tuple[list[float], tuple[float, float]]:
        setups = [replace(setup, routing=each) for each in routings]

        def look(_: str, pair: Pair) -> tuple[list[float], tuple[float, float]]:
            picture = RoutedPicture(model, pair, scales, layout)
            measured, ends = picture.measure_with_range(setups, routing.cost)
            return [each.psnr for each in measured], ends

        psnr, ends = zip(*reader.each(look, progress, warn=False), strict=True)
        lows, highs = zip(*ends, strict=True)
        return [fmean(column) for column in zip(*psnr, strict=True)], (min(lows), max(highs))

    def at(ks: Sequence[float]) -> list[float]:
        return measure([routing.replace(k=k) for k in ks])[0]

    def end(j: int) -> RoutingConfig:
        return routing.replace(mode=None, k=None, fixed_class=j)

    # By rising k: routings that choose alike are beside each other.
    lightest = end(model.num_classes - 1)
    (*psnr, light), (low, high) = measure([*(routing.replace(k=k) for k in CHEAP), lightest])
    # Beyond the outermost pixels' own thresholds, and beyond rounding.
    low, high = low - 1e-3 * (1 + abs(low)), high + 1e-3 * (1 + abs(high))

    def within(ks: Sequence[float], psnr: Sequence[float]) -> dict[float, float]:
        return {k: value for k, value in zip(ks, psnr, strict=True) if low < k < high}

    def heavier() -> dict[float, float]:
        heavy, *psnr = measure([end(0), *(routing.replace(k=k) for k in DEAR)])[0]
        return {_short(low): heavy, **within(DEAR, psnr)}

    found = search(at, {**within(CHEAP, psnr), _short(high): light}, target_psnr, heavier)
    _log.log(logging.INFO if found.reached else logging.WARNING, "%s", found.description)
    return found


def search(
    psnr_at: Callable[[Sequence[float]], Sequence[float]],
    seen: Mapping[float, float],
    target_psnr: float,
    heavier: Callable[[], Mapping[float, float]] = dict,
) -> KForTarget:
    """The ``k`` that is closest to a target; see :func:`find_k`.

    Args:
        psnr_at: the mean PSNR at each of several ``k``.
        seen: what is known already, up to all-light.
        target_psnr: dB.
        heavier: gives more, from all-heavy on; asked only if what is known does not lead to the
            target.
    """
    known = dict(seen)
    best, all_heavy = _closest(psnr_at, known, target_psnr), None
    if abs(known[best] - target_psnr) > CLOSE_ENOUGH:
        known |= heavier()
        best, all_heavy = _closest(psnr_at, known, target_psnr), known[min(known)]
    return KForTarget(best, known[best], known[max(known)], all_heavy, target_psnr)


def _closest(
    psnr_at: Callable[[Sequence[float]], Sequence[float]], known: dict[float, float], target: float
) -> float:
    """Adds to what is known until a ``k`` is close enough, or nothing else can be tried."""

    def miss(k: float) -> float:
        return abs(known[k] - target)

    if _bracket(known, target) is None:
        return min(min(known), max(known), key=miss)
    for _ in range(MAX_PASSES):
        bracket = _bracket(known, target)
        assert bracket is not None  # more points divide it
        ks = [k for k in _between(*bracket, known, target) if k not in known]
        if min(map(miss, known)) <= CLOSE_ENOUGH or not ks:
            break
        known |= zip(ks, psnr_at(ks), strict=True)
    return min(known, key=miss)


def _bracket(known: Mapping[float, float], target: float) -> tuple[float, float] | None:
    """Neighbours on both sides of the target; of several the last, which cost least."""
    ks = sorted(known)
    pairs = [
        (a, b)
        for a, b in pairwise(ks)
        if (known[a] - target) * (known[b] - target) <= 0 and known[a] != known[b]
    ]
    return pairs[-1] if pairs else None


def _between(a: float, b: float, known: Mapping[float, float], target: float) -> list[float]:
    """Where to look within a bracket: where a curve that keeps the shape of what is known (PCHIP)
    meets the target or nearly does, and at some shares of the bracket."""
    from scipy.interpolate import PchipInterpolator  # here: it is slow to import

    ks = sorted(known)
    k_N = np.linspace(a, b, STEPS)
    psnr_N = PchipInterpolator(ks, [min(known[k], EQUAL) for k in ks])(k_N)
    rising = np.argsort(psnr_N)
    near = np.interp([target + step for step in NEAR], psnr_N[rising], k_N[rising])
    even = [a + (b - a) * share for share in SHARES]
    return sorted({_short(k) for k in (*near, *even) if a < k < b})


def _short(k: float) -> float:
    """Six significant digits: the ``k`` that is printed is the one that was measured."""
    return float(f"{k:.6g}")

"""The ``k`` whose mean PSNR over a set meets a target, as the paper's tables compare methods."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.benchmark import check_fits, describe_setup
from pcsr_lightning.evaluation.pairs import Protocol, scale_pair
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.evaluation.reader import Reader
from pcsr_lightning.evaluation.routed_picture import RoutedPicture
from pcsr_lightning.inference import RoutingConfig
from pcsr_lightning.networks import PCSR, AnyNetwork, PatchRouted
from pcsr_lightning.routing.by_k import k_range
from pcsr_lightning.routing.cost import class_costs

_log = logging.getLogger(__name__)

CLOSE_ENOUGH = 0.0005
"""dB at which the search stops; a ``k`` within 0.005 dB counts as meeting the target."""
REACHED = 0.005
MAX_STEPS = 40


@dataclass(frozen=True)
class KForTarget:
    """The ``k`` whose mean PSNR is closest to a target.

    Attributes:
        k: the closest found, to six significant digits.
        psnr: its mean PSNR over the set.
        all_light: the mean PSNR where ``k`` is so high that every pixel takes the lightest class.
        all_heavy: where it is so low that every pixel takes the heaviest.
        target: what was asked for.
    """

    k: float
    psnr: float
    all_light: float
    all_heavy: float
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

    The network sees every picture once: its logits, and what each class makes of the whole
    picture, are kept, so that a ``k`` costs a selection, the refinement and the PSNR. They are kept
    in main memory (on the model's device the working picture only): ``16 M + 12`` bytes per HR
    pixel, 44 for two classes, which is 10 GB for the hundred pictures of Test2K.

    Halves the interval of ``k`` between all-heavy and all-light. PSNR mostly falls as ``k`` rises,
    not strictly: the closest ``k`` seen is kept. Where both ends lie on one side of the target, the
    nearer of them is the answer, even if some mixture did slightly better than both.

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
    pictures = reader.each(
        lambda _, pair: RoutedPicture(model, pair, scales, layout, offload=True),
        progress,
        warn=False,
    )
    sessions = [session for picture in pictures for session in picture.sessions]
    lows, highs = zip(
        *(k_range(s.logits, class_costs(s.macs.branches_M, routing.cost)) for s in sessions),
        strict=True,
    )
    low, high = min(lows), max(highs)
    setup = describe_setup(model, folder, scales, routing, protocol, layout)

    def mean_psnr(k: float) -> float:
        routed = replace(setup, routing=routing.replace(k=k))
        return fmean(picture.measure(routed).psnr for picture in pictures)

    # Beyond the outermost pixels' own thresholds, and beyond rounding.
    found = search(
        mean_psnr, low - 1e-3 * (1 + abs(low)), high + 1e-3 * (1 + abs(high)), target_psnr
    )
    _log.log(logging.INFO if found.reached else logging.WARNING, "%s", found.description)
    return found


def search(
    mean_psnr: Callable[[float], float], low: float, high: float, target_psnr: float
) -> KForTarget:
    """Bisection between ``low`` (all-heavy) and ``high`` (all-light); see :func:`find_k`."""
    low, high = _short(low), _short(high)
    at_low, at_high = mean_psnr(low), mean_psnr(high)
    best_k, best = min((low, at_low), (high, at_high), key=lambda x: abs(x[1] - target_psnr))
    if (at_low - target_psnr) * (at_high - target_psnr) < 0:
        a, b, heavier_is_better = low, high, at_low > at_high
        for _ in range(MAX_STEPS):
            k = _short((a + b) / 2)
            if abs(best - target_psnr) <= CLOSE_ENOUGH or k in (a, b):
                break
            value = mean_psnr(k)
            if abs(value - target_psnr) < abs(best - target_psnr):
                best_k, best = k, value
            if (value > target_psnr) == heavier_is_better:
                a = k
            else:
                b = k
    return KForTarget(best_k, best, all_light=at_high, all_heavy=at_low, target=target_psnr)


def _short(k: float) -> float:
    """Six significant digits: the ``k`` that is printed is the one that was measured."""
    return float(f"{k:.6g}")

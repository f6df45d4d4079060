"""The ``k`` whose mean PSNR over a set meets a target, as the paper's tables compare methods.

Legend: B batch (patches of a picture, or the picture), H W HR size, M classes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.benchmark import check_fits
from pcsr_lightning.evaluation.dense import every_class, select
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.pairs import Pair, Protocol, scale_pair, shaved_border
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.evaluation.reader import Reader
from pcsr_lightning.inference import Analysis, RoutingConfig
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.routing.by_k import assign_by_k
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
    model: PCSR | Original | None, routing: RoutingConfig, target_psnr: float | None
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

    Args:
        model: a PCSR with two classes or more.
        folder: of HR pictures; those that :func:`benchmark` leaves out are left out here.
        target_psnr: dB, RGB, mean over the pictures.
        scale: one number, or (vertical, horizontal).
        routing: its cost rule and refinement are used; its ``k`` must be 0.
        protocol: see :func:`make_pair`.
        patch_size: for protocol ``patches``.
        progress: shows a progress bar on stderr where that is a terminal.

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
    kept = reader.each(
        lambda _, pair: _Kept.of(model, pair, scales, routing, layout), progress, warn=False
    )
    low = min(x.k_range[0] for x in kept)
    high = max(x.k_range[1] for x in kept)

    def mean_psnr(k: float) -> float:
        return fmean(x.psnr(k) for x in kept)

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


@dataclass(frozen=True)
class _Kept:
    """What is kept of a picture. The batches are its patches; one of one without a layout.

    ``sr_MB3HW`` is what each class makes of all pixels, neither refined nor clamped.
    """

    logits_BMHW: tuple[Tensor, ...]
    sr_MB3HW: tuple[Tensor, ...]
    costs_M: Tensor
    hr_13HW: Tensor
    lr_size: tuple[int, int]
    layout: Layout | None
    refine: bool
    border: int
    device: torch.device

    @classmethod
    def of(
        cls,
        model: PCSR,
        pair: Pair,
        scale: tuple[float, float],
        routing: RoutingConfig,
        layout: Layout | None,
    ) -> _Kept:
        device = model.mean.device
        lr_13hw = pair.lr_13hw.to(device)
        logits, sr = [], []
        with torch.inference_mode():
            for lr_B3hw in [lr_13hw] if layout is None else layout.cut(lr_13hw):
                analysis = Analysis.of(model, lr_B3hw, scale=scale)
                logits.append(analysis.logits.cpu())
                sr.append(every_class(analysis).cpu())
            (h, w), (H, W) = analysis.grid.lr_size, analysis.size
            costs_M = class_costs(analysis.macs.plain.branches((H / h, W / w)), routing.cost)
        return cls(
            tuple(logits),
            tuple(sr),
            costs_M,
            pair.hr_13HW,
            (lr_13hw.shape[-2], lr_13hw.shape[-1]),
            layout,
            routing.refines(scale),
            shaved_border(scale),
            device,
        )

    @property
    def k_range(self) -> tuple[float, float]:
        """Below the first every pixel takes the heaviest class, above the second the lightest.

        Raises:
            ConfigError: all classes cost the same.
        """
        bias_M = self.costs_M.double().log()
        low, high = [], []
        for logits_BMHW in self.logits_BMHW:
            # Class 0 beats j while k < (l_0 - l_j) / (log c_0 - log c_j); the last beats j above
            # (l_j - l_last) / (log c_j - log c_last).
            l_MN = logits_BMHW.double().transpose(0, 1).flatten(1)
            for j, gap in enumerate((bias_M[0] - bias_M).tolist()):
                if gap > 1e-9:
                    low.append(float((l_MN[0] - l_MN[j]).min()) / gap)
            for j, gap in enumerate((bias_M - bias_M[-1]).tolist()):
                if gap > 1e-9:
                    high.append(float((l_MN[j] - l_MN[-1]).max()) / gap)
        if not low or not high:
            raise ConfigError(
                "target_psnr: all classes of this model cost the same, k decides nothing"
            )
        return min(low), max(high)

    def psnr(self, k: float) -> float:
        """As :func:`score_pair` would find it with this ``k``."""
        out = []
        with torch.inference_mode():
            for logits_BMHW, sr_MB3HW in zip(self.logits_BMHW, self.sr_MB3HW, strict=True):
                class_BHW = assign_by_k(logits_BMHW.to(self.device), self.costs_M, k)
                out.append(select(sr_MB3HW.to(self.device), class_BHW, self.refine))
            image = out[0] if self.layout is None else self.layout.join(out, self.lr_size)
            return psnr(image, self.hr_13HW.to(self.device), self.border)


def _short(k: float) -> float:
    """Six significant digits: the ``k`` that is printed is the one that was measured."""
    return float(f"{k:.6g}")

"""The ways to an enlarged picture that are compared, and one of them in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _inputs import SCALE, Models, load_original, load_pcsr
from _measure import peak_bytes
from plain_way import plain_original, plain_upscale
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.inference import original_flops
from pcsr_lightning.networks import PCSR, Original

PLAIN = "plain way"
ORIGINAL = "original, default layout"
FAST_ORIGINAL = "original, our layout and strips"
OURS = "ours"
BUDGET = "budget .5"
MODES: dict[str, dict[str, Any]] = {
    # The published code's costs; at k = 0 they do not matter.
    "k = 0": {"k": 0.0, "cost": "proportional"},
    "adaptive": {"adaptive": True},
    BUDGET: {"budget": 0.5},
}
WARM_UP = 16
"""Side of the small LR picture that every way meets before anything is measured."""


@dataclass(frozen=True)
class Way:
    """One row of the table: who makes the picture, in which precision, and who decides."""

    kind: str
    precision: str = "fp32"
    mode: str | None = None

    @property
    def name(self) -> str:
        """Unlike that of any other way."""
        return ", ".join(filter(None, [self.kind, self.precision, self.mode]))


class Outcome(NamedTuple):
    """A picture ``(1, 3, H, W)``, its classes ``(H, W)`` where it has some, and its cost."""

    image: Tensor
    classes: Tensor | None
    gmacs: float


def all_ways(with_original: bool, precisions: tuple[str, ...]) -> list[Way]:
    """The rows. Those that are divided by each other follow each other closely."""
    ways = [Way(PLAIN, mode=mode) for mode in MODES]
    if with_original:
        ways.append(Way(ORIGINAL))
    for precision in precisions:
        if with_original:
            ways.append(Way(FAST_ORIGINAL, precision))
        ways += [Way(OURS, precision, mode) for mode in MODES]
    return ways


def make_call(
    way: Way, model: PCSR | Original, lr_13hw: Tensor, classes_HW: Tensor | None = None
) -> Callable[[], Outcome]:
    """The way as a call without arguments.

    Args:
        way: which one.
        model: a PCSR for the plain way and ours, an original for the others.
        lr_13hw: the picture.
        classes_HW: for the plain way under a budget, which it has no rule for: what ours decided.
    """
    if way.kind == PLAIN:
        assert isinstance(model, PCSR)
        mode = {"classes_HW": classes_HW} if way.mode == BUDGET else MODES[way.mode or ""]
        pcsr = model
        return lambda: Outcome(*plain_upscale(pcsr, lr_13hw, SCALE, **mode))
    if way.kind == ORIGINAL:
        assert isinstance(model, Original)
        original = model
        gmacs = original_flops(original, lr_13hw[:, 0].numel()).gmacs
        return lambda: Outcome(plain_original(original, lr_13hw), None, gmacs)
    options = {} if way.mode is None else dict(MODES[way.mode])
    options["precision"] = way.precision

    def ours() -> Outcome:
        result = pcsr_lightning.upscale(model, lr_13hw, SCALE, **options)
        return Outcome(result.image, result.assignment[0], result.flops.gmacs)

    return ours


def warm_up(way: Way, model: PCSR | Original, lr_13hw: Tensor) -> None:
    """What only the first call pays for: counting the cost, choosing kernels.

    Raises:
        PCSRError: this way cannot be gone here, for instance for want of bf16.
    """
    small = lr_13hw[..., :WARM_UP, :WARM_UP].contiguous()
    side = SCALE * small.shape[-1]
    classes_HW = torch.zeros(SCALE * small.shape[-2], side, dtype=torch.uint8)
    classes_HW[:, side // 2 :] = 1
    make_call(way, model, small, classes_HW)()


def load_for(way: Way, models: Models) -> PCSR | Original:
    """The model that this way runs."""
    if way.kind in (PLAIN, OURS):
        return load_pcsr(models.pcsr)
    assert models.original is not None
    return load_original(models.original)


def describe(way: Way, models: Models, lr_file: Path, classes_file: Path | None) -> dict[str, Any]:
    """A job for :func:`work`, in plain values."""
    classes = str(classes_file) if classes_file is not None and way.mode == BUDGET else None
    return {
        "way": asdict(way),
        "models": list(models),
        "lr": str(lr_file),
        "classes": classes,
    }


def work(job: dict[str, Any]) -> dict[str, Any]:
    """One call in this process, which should be a fresh one.

    Returns:
        ``seconds``; ``before`` and ``after``, the process's peak memory in bytes; ``gmacs``; the
        part of pixels in the heaviest class, ``heavy``.
    """
    way = Way(**job["way"])
    model = load_for(way, Models(*job["models"]))
    lr_13hw = torch.from_numpy(np.load(job["lr"]))
    classes_HW = None if job["classes"] is None else torch.from_numpy(np.load(job["classes"]))
    warm_up(way, model, lr_13hw)
    before = peak_bytes()
    start = time.perf_counter()
    outcome = make_call(way, model, lr_13hw, classes_HW)()
    seconds = time.perf_counter() - start
    after = peak_bytes()
    heavy = None if outcome.classes is None else float((outcome.classes == 0).float().mean())
    return {
        "seconds": seconds,
        "before": before,
        "after": after,
        "gmacs": outcome.gmacs,
        "heavy": heavy,
    }

"""How fast a model is on this machine: a few runs over an invented picture, of two sizes.

A time is taken to be ``overhead + h w backbone + H W (classifier + sum of shares_M classes_M)``.

Legend: h w LR size, H W HR size, M classes, heaviest first, R runs, c scores of a pixel.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pcsr_lightning.inference import time_budget
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.flops import model_macs
from pcsr_lightning.inference.input_rows import InputRows
from pcsr_lightning.inference.result import collect
from pcsr_lightning.inference.session import Session
from pcsr_lightning.inference.upscaling import make_engine
from pcsr_lightning.networks import PCSR
from pcsr_lightning.routing import RoutingConfig
from pcsr_lightning.routing.cost import PictureMacs, PictureSeconds
from pcsr_lightning.routing.rules.seconds import Seconds

LR_PIXELS = {"cpu": 3 * 2**14, "cuda": 2**19}
HR_PIXELS = {"cpu": 2**20, "cuda": 2**23}
"""Of the larger picture, at most."""
SMALLER = 12
"""How much smaller the other is."""
MAINLY = 0.8
"""The share of the class that a run is about; near the ends, where no class is alone."""
TIMES = 3
BLOCK = 8
"""LR pixels: about what neighbours of one class are in photographs."""


def measure(model: PCSR, scale: tuple[float, float], execution: Execution) -> dict[str, Any]:
    """The numbers of a :class:`TimeModel`."""
    area, device, M = math.prod(scale), model.mean.device, model.num_classes
    kind = "cpu" if device.type == "cpu" else "cuda"
    pixels = max(2**12, min(LR_PIXELS[kind], round(HR_PIXELS[kind] / area)))
    small, large = _picture(pixels // SMALLER, device), _picture(pixels, device)
    mixes = [
        [1.0] if M == 1 else [MAINLY if i == j else (1 - MAINLY) / (M - 1) for i in range(M)]
        for j in range(M)
    ]
    even = [1 / M] * M
    _run(model, small, scale, even, execution)  # what only the first run takes
    backbone, classifier = _parts(model, large, scale, execution)
    seconds, rows = [], []
    for image, mix in ((small, even), *((large, mix) for mix in mixes)):
        runs = [_run(model, image, scale, mix, execution) for _ in range(TIMES)]
        took, shares = min(runs)
        lr, hr = image[0, 0].numel(), math.prod(_size(image, scale))
        seconds.append(took - lr * backbone)
        rows.append([1.0, *(hr * share for share in shares)])
    overhead, *classes_M = _solved(rows, seconds)
    for j in reversed(range(M - 1)):  # noise must not make a heavier class the cheaper one
        classes_M[j] = max(classes_M[j], classes_M[j + 1])
    return {
        "overhead": overhead,
        "backbone": backbone,
        "classifier": min(classifier, 0.9 * classes_M[-1]),
        "classes_M": tuple(each - min(classifier, 0.9 * classes_M[-1]) for each in classes_M),
    }


class _Mixed(Seconds):
    """Gives classes their shares, in blocks, after all the work that :class:`Seconds` has."""

    def __init__(self, macs: PictureMacs, shares_M: list[float]) -> None:
        M = len(shares_M)
        seconds = PictureSeconds(0.0, tuple(float(M - j) for j in range(M)))
        super().__init__(RoutingConfig(seconds=macs.pixels), replace(macs, seconds=seconds))
        self._above_T = torch.tensor(shares_M).cumsum(0)[:-1]

    def assign(self, score_Bchw: Tensor) -> Tensor:
        class_Bhw = super().assign(score_Bchw)
        h, w = class_Bhw.shape[1:]
        drawn = torch.rand(-(-h // BLOCK), -(-w // BLOCK), generator=_draw())
        block_hw = torch.bucketize(drawn, self._above_T, right=True).to(class_Bhw)
        wide_hw = block_hw.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        return wide_hw[None, :h, :w].expand_as(class_Bhw).contiguous()


def _run(
    model: PCSR,
    image: Tensor,
    scale: tuple[float, float],
    shares_M: list[float],
    execution: Execution,
) -> tuple[float, tuple[float, ...]]:
    """Seconds, and the shares that came out."""
    lr_size, size = (image.shape[2], image.shape[3]), _size(image, scale)
    macs = model_macs(model)
    policy = _Mixed(macs.of_picture(lr_size, size), shares_M)
    start = _now(image)
    engine = make_engine(model, InputRows(image), size, execution, policy.needs_whole_picture)
    result = collect(engine, macs, policy, bits=8)
    return _now(image) - start, result.shares


def _parts(
    model: PCSR, image: Tensor, scale: tuple[float, float], execution: Execution
) -> tuple[float, float]:
    """Seconds of the backbone for an LR pixel, and of the classifier for an HR pixel."""
    backbones, classifiers = [], [0.0]
    for _ in range(TIMES):
        start = _now(image)
        session = Session(model, image, size=_size(image, scale), execution=execution)
        backbones.append(_now(image) - start)
        if model.num_classes > 1:
            start = _now(image)
            _ = session.logits
            classifiers.append(_now(image) - start)
    hr = math.prod(_size(image, scale))
    return min(backbones) / image[0, 0].numel(), min(classifiers[1:], default=0.0) / hr


def _solved(rows: list[list[float]], seconds: list[float]) -> list[float]:
    """The overhead, which cannot be negative, and the seconds of each class."""
    rows_RU = torch.tensor(rows, dtype=torch.float64)
    seconds_R1 = torch.tensor(seconds, dtype=torch.float64)[:, None]
    found: list[float] = torch.linalg.lstsq(rows_RU, seconds_R1).solution[:, 0].tolist()
    if found[0] < 0:
        found = [0.0, *torch.linalg.lstsq(rows_RU[:, 1:], seconds_R1).solution[:, 0].tolist()]
    return [max(0.0, each) for each in found]


def _picture(pixels: int, device: torch.device) -> Tensor:
    w = round(math.sqrt(pixels * 4 / 3))
    coarse = torch.rand(1, 3, 12, 16, generator=_draw())
    size = (max(1, round(pixels / w)), w)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    return smooth.to(device)


def _draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _size(image: Tensor, scale: tuple[float, float]) -> tuple[int, int]:
    return round(image.shape[2] * scale[0]), round(image.shape[3] * scale[1])


def _now(image: Tensor) -> float:
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    return time_budget.clock()

"""A model on a folder of pictures: quality, cost and time of each, and their means."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from pcsr_lightning.distributed import ALONE, ProcessGroup
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.metrics import build_lpips, psnr, psnr_y, ssim
from pcsr_lightning.evaluation.pairs import (
    Pair,
    Protocol,
    check_whole_scale,
    scale_pair,
    shaved_border,
)
from pcsr_lightning.evaluation.patches import Layout, restore
from pcsr_lightning.evaluation.reader import Reader, Skipped
from pcsr_lightning.images import bicubic
from pcsr_lightning.inference import Routing, UpscaleResult
from pcsr_lightning.networks import PCSR, Original

WARM_UP = 32
"""Side in LR pixels of what is upscaled once, untimed, before the first picture."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One picture's numbers, or the means over several.

    Attributes:
        psnr: dB, RGB, 8 bit, shaved; infinite where nothing differs.
        psnr_y: dB, on the luma of MATLAB's ``rgb2ycbcr``; likewise.
        ssim: on RGB; NaN where the picture is smaller than SSIM's window.
        lpips: with AlexNet, lower is better; ``None`` where it was not asked for.
        bicubic_psnr: of MATLAB-style bicubic enlargement; so the next three.
        bicubic_psnr_y: likewise.
        bicubic_ssim: likewise.
        bicubic_lpips: likewise.
        gmacs: 10^9 multiply-adds really executed, hoisting included.
        gflops_published: 10^9 operations by the published count of the un-hoisted network.
        share: of the pixels, by class, heaviest first; adds up to 1.
        seconds: wall time of the upscaling alone, without reading, degrading or comparing.
    """

    psnr: float
    psnr_y: float
    ssim: float
    bicubic_psnr: float
    bicubic_psnr_y: float
    bicubic_ssim: float
    gmacs: float
    gflops_published: float
    share: tuple[float, ...]
    seconds: float
    lpips: float | None = None
    bicubic_lpips: float | None = None


@dataclass(frozen=True, kw_only=True)
class PictureScore(Score):
    """A picture's :class:`Score`, its name within the folder and its ``(H, W)`` as compared."""

    name: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Benchmark:
    """What :func:`benchmark` found: one score at least, and which pictures were left out."""

    images: tuple[PictureScore, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def mean(self) -> Score:
        """Means over the pictures, all counting alike whatever their size, as in the tables."""
        means: dict[str, Any] = {
            f.name: _mean([getattr(s, f.name) for s in self.images])
            for f in fields(Score)
            if f.name != "share"
        }
        share = tuple(fmean(c) for c in zip(*(s.share for s in self.images), strict=True))
        return Score(share=share, **means)


OnPicture = Callable[[PictureScore, UpscaleResult], None]


Lpips = Callable[[Tensor, Tensor, int], float]


def benchmark(
    model: PCSR | Original,
    folder: str | Path,
    scale: float | Sequence[float] = 4,
    routing: Routing | None = None,
    protocol: Protocol | str = Protocol.WHOLE,
    on_picture: OnPicture | None = None,
    progress: bool = False,
    *,
    patch_size: int | None = None,
    lpips: bool = False,
    processes: ProcessGroup = ALONE,
) -> Benchmark:
    """Degrades every picture of a folder, upscales it again and compares.

    A picture that cannot be read, or is too small, is left out with a warning that names it.

    Args:
        model: on the device it is to be measured on.
        folder: of HR pictures; sub-folders too.
        scale: one number, or (vertical, horizontal). Original models know one.
        routing: how pixels find their class; ``k = 0`` if not given. Original models have none.
        protocol: which pixels count, see :func:`make_pair`; with ``patches`` and ``overlapped``
            pictures are enlarged in patches, see :func:`restore`.
        on_picture: gets each score with the picture it was given for, in the process that did it.
        progress: shows a progress bar on stderr where that is a terminal.
        patch_size: for protocol ``patches``: 16, 32 (if not given), 64 or 128 LR pixels.
        lpips: measures LPIPS too, see :func:`build_lpips`.
        processes: that share the pictures; each of them is told all that was found.

    Raises:
        ConfigError: scale, routing or protocol do not fit the model or each other; or LPIPS
            cannot be had.
        PictureError: no such folder, or no picture in it.
        DataError: none of its pictures could be used.
    """
    routing, protocol, scales = routing or Routing(), Protocol(protocol), scale_pair(scale)
    check_fits(model, scales, routing, protocol)
    layout = Layout.of(protocol, patch_size)
    perceptual = processes.run_collectively(
        lambda: build_lpips(model.mean.device) if lpips else None
    )
    reader = Reader(Path(folder), scales, protocol, processes)
    warm = False

    def score(name: str, pair: Pair) -> PictureScore:
        nonlocal warm
        if not warm:
            warm_up = pair.lr_13hw[..., :WARM_UP, :WARM_UP].to(model.mean.device)
            restore(model, warm_up, scales, routing)
            warm = True
        found, result = score_pair(model, pair, scales, routing, name, layout, perceptual)
        if on_picture is not None:
            on_picture(found, result)
        return found

    images = reader.each(score, progress)
    return Benchmark(tuple(images), tuple(reader.skipped))


def score_pair(
    model: PCSR | Original,
    pair: Pair,
    scale: tuple[float, float],
    routing: Routing,
    name: str = "",
    layout: Layout | None = None,
    lpips: Lpips | None = None,
) -> tuple[PictureScore, UpscaleResult]:
    """Upscales one degraded picture, timed, and compares it with the truth."""
    device = model.mean.device
    lr_13hw, hr_13HW = pair.lr_13hw.to(device), pair.hr_13HW.to(device)
    start = _now(device)
    result = restore(model, lr_13hw, scale, routing, layout)
    seconds = _now(device) - start
    size = (hr_13HW.shape[-2], hr_13HW.shape[-1])
    border = shaved_border(scale)
    simple = bicubic(lr_13hw, size)
    score = PictureScore(
        psnr=psnr(result.image, hr_13HW, border),
        psnr_y=psnr_y(result.image, hr_13HW, border),
        ssim=ssim(result.image, hr_13HW, border),
        lpips=None if lpips is None else lpips(result.image, hr_13HW, border),
        bicubic_psnr=psnr(simple, hr_13HW, border),
        bicubic_psnr_y=psnr_y(simple, hr_13HW, border),
        bicubic_ssim=ssim(simple, hr_13HW, border),
        bicubic_lpips=None if lpips is None else lpips(simple, hr_13HW, border),
        gmacs=result.flops.gmacs,
        gflops_published=result.flops.gflops_published,
        share=tuple(float(s) for s in result.shares),
        seconds=seconds,
        name=name,
        size=size,
    )
    return score, result


def check_fits(
    model: PCSR | Original,
    scale: tuple[float, float],
    routing: Routing,
    protocol: Protocol = Protocol.WHOLE,
) -> None:
    """Refuses what the model cannot do, before any picture is read.

    Raises:
        ConfigError: an original model at another scale than its own, a class there is not, or a
            broken scale with a protocol that knows whole ones only.
    """
    check_whole_scale(protocol, scale)
    if isinstance(model, Original) and scale != (model.scale, model.scale):
        raise ConfigError(
            f"scale={_words(scale)}: this is an original {model.backbone.name}, made for scale "
            f"{model.scale} alone; use scale={model.scale}, or a PCSR model"
        )
    classes = 1 if isinstance(model, Original) else model.num_classes
    if routing.single is not None and routing.single >= classes:
        known = f"classes 0 (the heaviest) to {classes - 1}" if classes > 1 else "class 0 only"
        raise ConfigError(f"routing.mode={routing.single}: this model has {known}")


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, or ``None`` where a value was not measured."""
    known = [v for v in values if v is not None]
    return fmean(known) if len(known) == len(values) else None


def _now(device: torch.device) -> float:
    """Seconds, once everything sent to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _words(scale: tuple[float, float]) -> str:
    return f"{scale[0]:g}" if scale[0] == scale[1] else f"[{scale[0]:g},{scale[1]:g}]"

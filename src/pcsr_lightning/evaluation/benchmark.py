"""A model on a folder of pictures: quality, cost and time of each, and their means."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from pcsr_lightning.errors import ConfigError, DataError, PictureError
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.pairs import Pair, Protocol, make_pair, scale_pair, shaved_border
from pcsr_lightning.inference import Analysis, Routing, UpscaleResult, upscale
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.pictures import bicubic, list_pictures, read_rgb8

_log = logging.getLogger(__name__)

WARM_UP = 32
"""Side in LR pixels of what is upscaled once, untimed, before the first picture."""


@dataclass(frozen=True)
class Score:
    """One picture's numbers, or the means over several.

    Attributes:
        psnr: dB, RGB, 8 bit, shaved; infinite where nothing differs.
        bicubic_psnr: the same of MATLAB-style bicubic enlargement.
        gmacs: 10^9 multiply-adds really executed, hoisting included.
        gflops_published: 10^9 operations by the published count of the un-hoisted network.
        share: of the pixels, by class, heaviest first; adds up to 1.
        seconds: wall time of the upscaling alone, without reading, degrading or comparing.
    """

    psnr: float
    bicubic_psnr: float
    gmacs: float
    gflops_published: float
    share: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class PictureScore(Score):
    """A picture's :class:`Score`, its name within the folder and its ``(H, W)`` as compared."""

    name: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Benchmark:
    """What :func:`benchmark` found: one score at least, and which pictures were left out."""

    images: tuple[PictureScore, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def mean(self) -> Score:
        """Means over the pictures, all counting alike whatever their size, as in the tables."""
        return Score(
            psnr=fmean(s.psnr for s in self.images),
            bicubic_psnr=fmean(s.bicubic_psnr for s in self.images),
            gmacs=fmean(s.gmacs for s in self.images),
            gflops_published=fmean(s.gflops_published for s in self.images),
            share=tuple(fmean(c) for c in zip(*(s.share for s in self.images), strict=True)),
            seconds=fmean(s.seconds for s in self.images),
        )


OnPicture = Callable[[PictureScore, UpscaleResult], None]


def benchmark(
    model: PCSR | Original,
    folder: str | Path,
    scale: float | Sequence[float] = 4,
    routing: Routing | None = None,
    protocol: Protocol | str = Protocol.WHOLE,
    on_picture: OnPicture | None = None,
    progress: bool = False,
) -> Benchmark:
    """Degrades every picture of a folder, upscales it again and compares.

    A picture that cannot be read, or is too small, is left out with a warning that names it.

    Args:
        model: on the device it is to be measured on.
        folder: of HR pictures; sub-folders too.
        scale: one number, or (vertical, horizontal). Original models know one.
        routing: how pixels find their class; ``k = 0`` if not given. Original models have none.
        protocol: which pixels count, see :func:`make_pair`.
        on_picture: gets each score with the picture it was given for.
        progress: shows a progress bar on stderr where that is a terminal.

    Raises:
        ConfigError: scale, routing or protocol do not fit the model.
        PictureError: no such folder, or no picture in it.
        DataError: none of its pictures could be used.
    """
    routing, protocol, scales = routing or Routing(), Protocol(protocol), scale_pair(scale)
    check_fits(model, scales, routing)
    folder = Path(folder)
    files = list_pictures(folder)
    images: list[PictureScore] = []
    skipped: list[Skipped] = []
    for path in _tracked(files, progress):
        name = path.relative_to(folder).as_posix()
        try:
            pair = make_pair(read_rgb8(path), scales, protocol)
        except PictureError as error:
            reason = str(error).removeprefix(f"{path}: ")
            skipped.append(Skipped(name, reason))
            _log.warning("%s is left out: %s", path, reason)
            continue
        if not images:
            _restore(model, pair.lr_13hw[..., :WARM_UP, :WARM_UP], scales, routing)
        score, result = score_pair(model, pair, scales, routing, name)
        images.append(score)
        if on_picture is not None:
            on_picture(score, result)
    if skipped:
        _log.warning("%d of %d pictures were left out", len(skipped), len(files))
    if not images:
        raise DataError(
            f"{folder}: none of its {len(files)} pictures can be used; the first, "
            f"{skipped[0].name}: {skipped[0].reason}"
        )
    return Benchmark(tuple(images), tuple(skipped))


def score_pair(
    model: PCSR | Original,
    pair: Pair,
    scale: tuple[float, float],
    routing: Routing,
    name: str = "",
) -> tuple[PictureScore, UpscaleResult]:
    """Upscales one degraded picture, timed, and compares it with the truth."""
    device = model.mean.device
    lr_13hw, hr_13HW = pair.lr_13hw.to(device), pair.hr_13HW.to(device)
    start = _now(device)
    result = _restore(model, lr_13hw, scale, routing)
    seconds = _now(device) - start
    size = (hr_13HW.shape[-2], hr_13HW.shape[-1])
    border = shaved_border(scale)
    score = PictureScore(
        psnr=psnr(result.image, hr_13HW, border),
        bicubic_psnr=psnr(bicubic(lr_13hw, size), hr_13HW, border),
        gmacs=result.flops.gmacs,
        gflops_published=result.flops.gflops_published,
        share=tuple(float(s) for s in result.shares),
        seconds=seconds,
        name=name,
        size=size,
    )
    return score, result


def check_fits(model: PCSR | Original, scale: tuple[float, float], routing: Routing) -> None:
    """Refuses what the model cannot do, before any picture is read.

    Raises:
        ConfigError: an original model at another scale than its own, or a class there is not.
    """
    if isinstance(model, Original) and scale != (model.scale, model.scale):
        raise ConfigError(
            f"scale={_words(scale)}: this is an original {model.backbone.name}, made for scale "
            f"{model.scale} alone; use scale={model.scale}, or a PCSR model"
        )
    classes = 1 if isinstance(model, Original) else model.num_classes
    if routing.single is not None and routing.single >= classes:
        known = f"classes 0 (the heaviest) to {classes - 1}" if classes > 1 else "class 0 only"
        raise ConfigError(f"routing.mode={routing.single}: this model has {known}")


def _restore(
    model: PCSR | Original, lr_13hw: Tensor, scale: tuple[float, float], routing: Routing
) -> UpscaleResult:
    lr_13hw = lr_13hw.to(model.mean.device)
    with torch.inference_mode():
        if isinstance(model, Original):
            return upscale(model, lr_13hw, scale=scale)
        return Analysis.of(model, lr_13hw, scale=scale).run(routing)


def _now(device: torch.device) -> float:
    """Seconds, once everything sent to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _words(scale: tuple[float, float]) -> str:
    return f"{scale[0]:g}" if scale[0] == scale[1] else f"[{scale[0]:g},{scale[1]:g}]"


def _tracked(files: Sequence[Path], progress: bool) -> Iterable[Path]:
    """The files, with a progress bar on stderr where someone can see it."""
    console = Console(stderr=True)
    if not (progress and console.is_terminal):
        yield from files
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("pictures", total=len(files))
        for path in files:
            bar.update(task, description=path.name[:40])
            yield path
            bar.advance(task)

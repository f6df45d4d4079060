"""One picture from file to file.

Legend: h w LR size, H W HR size.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pcsr_lightning import inference, pictures
from pcsr_lightning.batch.inputs import STREAM
from pcsr_lightning.batch.outputs import FALLBACK, Job
from pcsr_lightning.batch.sizes import WantedSize
from pcsr_lightning.errors import PictureError
from pcsr_lightning.inference import UpscaleResult
from pcsr_lightning.inference.engine import Progress
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.pictures import MAX_PIXELS, Picture
from pcsr_lightning.pictures.formats import HEAD_BYTES, recognise


@dataclass(frozen=True)
class Settings:
    """How every picture of a run is enlarged; see ``pcsr_lightning.inference.upscale``.

    Attributes:
        scale: of every picture, where ``size`` is ``None``.
        size: of every result.
        format: of results, a suffix such as ``.png``; ``None`` is what the output's name says.
        quality: 1 to 100, for formats that have one.
        max_pixels: that a picture to be read may have.
    """

    scale: float
    size: WantedSize | None = None
    k: float = 0.0
    adaptive: bool = False
    only: int | None = None
    budget: float | None = None
    cost: str = "softmax"
    refine: bool | None = None
    precision: str = "fp32"
    max_memory: int | None = None
    format: str | None = None
    quality: int | None = None
    max_pixels: int = MAX_PIXELS

    def size_of(self, lr_size: tuple[int, int]) -> tuple[int, int]:
        """The result's ``(H, W)``.

        Raises:
            ConfigError: out of range for this picture.
        """
        if self.size is not None:
            return self.size.of(lr_size)
        return inference.output_size(lr_size, self.scale)


@dataclass(frozen=True)
class Done:
    """What came of a picture. Sizes are ``(H, W)``.

    Attributes:
        words: the line to tell the user.
    """

    lr_size: tuple[int, int]
    size: tuple[int, int]
    seconds: float
    shares: tuple[float, ...]
    gmacs: float
    words: str


def enlarge_file(
    model: PCSR | Original, job: Job, settings: Settings, progress: Progress | None = None
) -> Done:
    """Reads a picture, enlarges it and writes the result, with its class map first if wanted.

    The result is written last: where it is, all of the job is done.

    Args:
        model: on the device to work on.
        job: which picture.
        settings: how.
        progress: see ``pcsr_lightning.inference.upscale``.

    Raises:
        PCSRError: the picture cannot be read, enlarged so, or written.
    """
    start = time.perf_counter()
    picture, own = _read(job.source, settings.max_pixels)
    lr_size = (picture.rgb.shape[-2], picture.rgb.shape[-1])
    size = settings.size_of(lr_size)
    suffix = settings.format or (own if job.target == STREAM else job.target.suffix)
    pictures.check_writable(suffix if job.target == STREAM else job.target, size)
    rgb = picture.rgb
    if picture.alpha is not None:
        rgb = pictures.fill_under_alpha(rgb, picture.alpha)
    result = upscale(model, rgb, size, settings, picture.bits, progress)
    enlarged = picture.enlarged(result.image[0].cpu(), _enlarged_alpha(picture.alpha, size))
    if job.class_map is not None:
        job.class_map.parent.mkdir(parents=True, exist_ok=True)
        pictures.write(_class_map(result), job.class_map)
    _write(enlarged, job.target, suffix, settings.quality)
    seconds = time.perf_counter() - start
    words = _words(model, lr_size, size, result, seconds, settings.budget)
    return Done(lr_size, size, seconds, result.shares, result.flops.gmacs, words)


def upscale(
    model: PCSR | Original,
    rgb_3hw: Tensor,
    size: tuple[int, int],
    settings: Settings,
    bits: int,
    progress: Progress | None = None,
) -> UpscaleResult:
    """One picture under a run's settings, to exactly ``size``."""
    return inference.upscale(
        model,
        rgb_3hw[None].to(model.mean.device),
        k=settings.k,
        adaptive=settings.adaptive,
        size=size,
        only=settings.only,
        budget=settings.budget,
        cost=settings.cost,
        refine=settings.refine,
        precision=settings.precision,
        max_memory=settings.max_memory,
        bits=bits,
        progress=progress,
    )


def rehearse(model: PCSR | Original, settings: Settings) -> None:
    """A tiny picture, so that what is wrong with the settings is told before a batch, and once.

    Raises:
        PCSRError: the settings do not fit each other, the model or the machine; or the model gives
            NaN.
    """
    size = (8, 8) if settings.size is not None else settings.size_of((4, 4))
    if settings.size is not None and isinstance(model, Original):
        size = (4 * model.scale, 4 * model.scale)
    rgb_3hw = torch.linspace(0, 1, 48).reshape(3, 4, 4)
    upscale(model, rgb_3hw, size, settings, bits=8)


def _read(source: Path, max_pixels: int) -> tuple[Picture, str]:
    """A picture, and the suffix of a format to give it back in."""
    if source != STREAM:
        own = source.suffix.lower()
        picture = pictures.read(source, max_pixels)
        return picture, own if own in pictures.SUFFIXES else FALLBACK
    data = sys.stdin.buffer.read()
    if not data:
        raise PictureError("-: nothing came from standard input")
    return pictures.decode(data, max_pixels), recognise(data[:HEAD_BYTES]).suffixes[0]


def _write(picture: Picture, target: Path, suffix: str, quality: int | None) -> None:
    if target != STREAM:
        target.parent.mkdir(parents=True, exist_ok=True)
        pictures.write(picture, target, quality=quality)
        return
    data = pictures.encode(picture, suffix.removeprefix("."), quality)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _enlarged_alpha(alpha_1hw: Tensor | None, size: tuple[int, int]) -> Tensor | None:
    return None if alpha_1hw is None else pictures.bicubic(alpha_1hw, size).clamp(0, 1)


def _class_map(result: UpscaleResult) -> Picture:
    num_classes, image = len(result.shares), result.image[0]
    image = image.float() / torch.iinfo(image.dtype).max
    return Picture(inference.class_map(image, result.assignment[0], num_classes).cpu())


def _words(
    model: PCSR | Original,
    lr_size: tuple[int, int],
    size: tuple[int, int],
    result: UpscaleResult,
    seconds: float,
    budget: float | None,
) -> str:
    line = f"{lr_size[1]}x{lr_size[0]} -> {size[1]}x{size[0]} in {seconds:.2f} s"
    cost = f"{result.flops.gmacs:.3g} GMACs"
    if isinstance(model, PCSR):
        shares = " / ".join(f"{100 * share:.1f}%" for share in result.shares)
        heavy = inference.all_heavy_flops(model, lr_size, size)
        line += f", classes heavy to light {shares}"
        cost += f", {100 * result.flops.gmacs / heavy.gmacs:.0f}% of all-heavy"
        words = None if budget is None else inference.budget_words(model, lr_size, size, budget)
        cost += f"; {words}" if words else ""
    return f"{line}, {cost}"

"""One picture from file to file.

Legend: h w LR size, H W HR size.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pcsr_lightning import inference, pictures
from pcsr_lightning.batch.inputs import STREAM
from pcsr_lightning.batch.outputs import FALLBACK, Job
from pcsr_lightning.batch.sizes import WantedSize
from pcsr_lightning.errors import PictureError
from pcsr_lightning.inference import PictureSink, RowsDone
from pcsr_lightning.inference.analysis import WHOLE
from pcsr_lightning.inference.engine import Progress
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.pictures import MAX_PIXELS, Picture
from pcsr_lightning.pictures.formats import HEAD_BYTES, recognise

STREAM_PIXELS = 2**22
"""Results from this size on go to their file row by row; smaller ones take little memory."""


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
    if _streams(job, picture, size):
        result = _streamed(model, picture, size, job, settings, progress)
    else:
        result = _at_once(model, replace(picture, rgb=rgb), size, job, settings, suffix, progress)
    seconds = time.perf_counter() - start
    words = _words(model, lr_size, size, result, seconds, settings.budget)
    return Done(lr_size, size, seconds, result.shares, result.flops.gmacs, words)


def _at_once(
    model: PCSR | Original,
    picture: Picture,
    size: tuple[int, int],
    job: Job,
    settings: Settings,
    suffix: str,
    progress: Progress | None,
) -> RowsDone:
    """The whole result in memory, then in its file."""
    image_3HW = torch.empty(3, *size, dtype=WHOLE[picture.bits])
    class_HW = torch.empty(0 if job.class_map is None else size[0], size[1], dtype=torch.uint8)
    top = 0

    def sink(rows_3nW: Tensor, class_nW: Tensor) -> None:
        nonlocal top
        bottom = top + rows_3nW.shape[1]
        image_3HW[:, top:bottom] = rows_3nW.cpu()
        if job.class_map is not None:
            class_HW[top:bottom] = class_nW.cpu()
        top = bottom

    result = upscale(model, picture.rgb, size, settings, picture.bits, sink, progress)
    enlarged = picture.enlarged(image_3HW, _enlarged_alpha(picture.alpha, size))
    if job.class_map is not None:
        job.class_map.parent.mkdir(parents=True, exist_ok=True)
        pictures.write(_class_map(image_3HW, class_HW, len(result.shares)), job.class_map)
    _write(enlarged, job.target, suffix, settings.quality)
    return result


def _streams(job: Job, picture: Picture, size: tuple[int, int]) -> bool:
    """Whether rows go to the file as they are finished."""
    if size[0] * size[1] < STREAM_PIXELS:
        return False
    if job.target == STREAM or job.class_map is not None or picture.alpha is not None:
        return False
    return pictures.can_stream(job.target.suffix)


def _streamed(
    model: PCSR | Original,
    picture: Picture,
    size: tuple[int, int],
    job: Job,
    settings: Settings,
    progress: Progress | None,
) -> RowsDone:
    """Rows to the file as they are finished."""
    job.target.parent.mkdir(parents=True, exist_ok=True)
    facts = pictures.outline(picture, size)
    with pictures.written_by_rows(facts, job.target, quality=settings.quality) as put:

        def sink(rows_3nW: Tensor, _: Tensor) -> None:
            put(rows_3nW)

        return upscale(model, picture.rgb, size, settings, picture.bits, sink, progress)


def upscale(
    model: PCSR | Original,
    rgb_3hw: Tensor,
    size: tuple[int, int],
    settings: Settings,
    bits: int,
    sink: PictureSink,
    progress: Progress | None = None,
) -> RowsDone:
    """One picture under a run's settings, to exactly ``size``; ``sink`` takes its rows in order."""
    routing = inference.choose_routing(
        settings.k,
        settings.adaptive,
        settings.only,
        settings.budget,
        settings.cost,
        settings.refine,
    )
    execution = inference.Execution(settings.precision, settings.max_memory)
    rgb_3hw = rgb_3hw.to(model.mean.device)
    return inference.upscale_rows(model, rgb_3hw, size, sink, routing, execution, bits, progress)


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
    upscale(model, rgb_3hw, size, settings, 8, lambda *_: None)


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


def _class_map(image_3HW: Tensor, class_HW: Tensor, num_classes: int) -> Picture:
    image = image_3HW.float() / torch.iinfo(image_3HW.dtype).max
    return Picture(inference.class_map(image, class_HW, num_classes))


def _words(
    model: PCSR | Original,
    lr_size: tuple[int, int],
    size: tuple[int, int],
    result: RowsDone,
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

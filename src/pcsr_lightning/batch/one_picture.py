"""One picture from file to file.

Legend: h w LR size, H W HR size.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from pcsr_lightning import images, inference
from pcsr_lightning.batch.inputs import STREAM
from pcsr_lightning.batch.models import RunModels
from pcsr_lightning.batch.outputs import Job
from pcsr_lightning.batch.sizes import WantedSize
from pcsr_lightning.batch.time_left import PictureClock
from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import MAX_PIXELS, Picture, TakesRows
from pcsr_lightning.images.formats import HEAD_BYTES, recognise
from pcsr_lightning.inference import PictureRows, PictureSink, RowsDone
from pcsr_lightning.inference.engine import Progress, part_of
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.routing import RoutingConfig
from pcsr_lightning.weights import ModelChoice

_MOST_OF_A_PIXEL, _FEWEST_BYTES = 8, 2**26
"""Bytes read from a stream for each pixel that a picture may have (RGBA of 16 bits takes 8), and
beside them, for what else is in a file."""
_PIECE = 2**20
"""Bytes asked of a stream at a time: Python takes memory for them before it reads."""


@dataclass(frozen=True)
class UpscaleOptions:
    """How every picture of a run is upscaled; see ``pcsr_lightning.inference.upscale``.

    Attributes:
        scale: of every picture, where ``size`` is ``None``.
        size: of every result.
        routing: which class each pixel takes.
        format: of results, a suffix such as ``.png``; ``None`` is what the output's name says.
        quality: 1 to 100, for formats that have one.
        max_pixels: that a picture to be read may have.
    """

    scale: float
    size: WantedSize | None = None
    routing: RoutingConfig = field(default_factory=RoutingConfig)
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
    """What is reported of an upscaled picture. Sizes are ``(H, W)``.

    Attributes:
        shares: of the pixels in each class; none if the model has nothing to route.
        cost: as a share of all-heavy; ``None`` if the model has nothing to route.
        note: what the user should know of this routing of this picture.
        model: the name of the one that was taken, and why where the user did not choose it.
    """

    lr_size: tuple[int, int]
    size: tuple[int, int]
    seconds: float
    shares: tuple[float, ...]
    gmacs: float
    cost: float | None
    note: str | None
    model: ModelChoice

    def summary(self) -> str:
        """What was made, briefly."""
        line = f"{self.size[1]}x{self.size[0]} in {self.seconds:.1f} s"
        if self.cost is None:
            return line
        heavy = f"{100 * self.shares[0]:.0f}% of pixels heavy"
        return f"{line}, {heavy}, {100 * self.cost:.0f}% of full cost"

    def details(self) -> str:
        """All that is known, in one line."""
        sizes = f"{self.lr_size[1]}x{self.lr_size[0]} -> {self.size[1]}x{self.size[0]}"
        line, cost = f"{sizes} in {self.seconds:.2f} s", f"{self.gmacs:.3g} GMACs"
        if self.model.said is not None:
            line = f"{self.model.said}; {line}"
        if self.cost is None:
            return f"{line}, {cost}"
        shares = " / ".join(f"{100 * share:.1f}%" for share in self.shares)
        note = f"; {self.note}" if self.note else ""
        return (
            f"{line}, classes heavy to light {shares}, {cost}, {100 * self.cost:.0f}% of all-heavy"
            f"{note}"
        )


def upscale_file(
    models: RunModels, job: Job, options: UpscaleOptions, progress: Progress | None = None
) -> Done:
    """Reads a picture, upscales it and writes the result, with its class map first if wanted.

    Rows are written as they are finished, those of small pictures too: beside a whole result
    written at once this takes 3 ms more (of 10) for 40 x 48 pixels, and nothing that could be
    measured for 400 x 480. The result has its name last: where it is, all of the job is done.

    Args:
        models: on the device to work on.
        job: which picture.
        options: how.
        progress: see ``pcsr_lightning.inference.upscale``.

    Raises:
        PCSRError: the picture cannot be read, upscaled so, or written.
    """
    start = time.perf_counter()
    picture, own = _read(job.source, options.max_pixels)
    colour = images.ColourRows(picture)
    size = options.size_of(colour.size)
    chosen = models.choose(picture, size)
    model = models.networks[chosen.name]
    suffix = options.format or (own if job.target == STREAM else job.target.suffix)
    images.check_writable(suffix if job.target == STREAM else job.target, size)
    clock = _clock(start, model, picture, colour.size, size, options, suffix)
    if clock is not None:
        start, options = clock.start, replace(options, routing=clock.routing)
    with (
        _result_file(picture, size, job, suffix, options.quality) as put,
        _class_file(model, size, job.class_map) as put_classes,
        _alpha_rows(model, picture, size, options, part_of(progress, 0.0, 0.5)) as alpha,
    ):

        def sink(rows_3nW: Tensor, class_nW: Tensor) -> None:
            begun, rows_3nW = time.perf_counter(), rows_3nW.cpu()
            put(rows_3nW, None if alpha is None else alpha.take(rows_3nW.shape[1]))
            put_classes(rows_3nW, class_nW.cpu())
            if clock is not None:
                clock.writing += time.perf_counter() - begun

        rest = progress if alpha is None else part_of(progress, 0.5, 1.0)
        result = upscale(model, colour, size, options, picture.bits, sink, rest)
        upscaled_at = time.perf_counter()
    finished = time.perf_counter()
    upscaled = 1
    if alpha is not None and alpha.flops.gmacs > 0:
        # A transparency that was upscaled like a picture makes two of one.
        upscaled, result = 2, replace(result, flops=result.flops.plus(alpha.flops))
    cost, note = None, None
    if isinstance(model, PCSR):
        heavy = inference.all_heavy_flops(model, colour.size, size, upscaled)
        cost = result.flops.gmacs / heavy.gmacs
        if clock is None:
            note = inference.routing_note(model, colour.size, size, options.routing)
        else:
            timings = [result.timing, None if alpha is None else alpha.timing]
            note = str(clock.finish(timings, finished, finished - upscaled_at))
    seconds, gmacs = finished - start, result.flops.gmacs
    return Done(colour.size, size, seconds, result.shares, gmacs, cost, note, chosen)


def _clock(
    start: float,
    model: PCSR | Original,
    picture: Picture,
    lr_size: tuple[int, int],
    size: tuple[int, int],
    options: UpscaleOptions,
    suffix: str,
) -> PictureClock | None:
    """What divides the time that was asked for; ``None`` if none was."""
    if not options.routing.rule.timed or isinstance(model, Original):
        return None
    alpha, execution = picture.alpha, inference.Execution(options.precision, options.max_memory)
    two = alpha is not None and images.AlphaRange(alpha).constant is None
    return PictureClock(
        start, options.routing, model, execution, lr_size, size,
        (suffix, options.quality), pictures=1 + two,
    )  # fmt: skip


@contextmanager
def _alpha_rows(
    model: PCSR | Original,
    picture: Picture,
    size: tuple[int, int],
    options: UpscaleOptions,
    progress: Progress | None,
) -> Iterator[inference.AlphaRows | None]:
    """The upscaled transparency; ``None`` for a picture that has none."""
    if picture.alpha is None:
        yield None
        return
    execution = inference.Execution(options.precision, options.max_memory)
    with inference.upscaled_alpha(
        model, picture.alpha, size, options.routing, execution, picture.bits, progress
    ) as alpha:
        yield alpha


def _result_file(
    picture: Picture, size: tuple[int, int], job: Job, suffix: str, quality: int | None
) -> AbstractContextManager[TakesRows]:
    """Where the result's rows go."""
    header = images.outline(picture, size)
    if job.target == STREAM:
        return images.encoded_by_rows(header, suffix, sys.stdout.buffer, quality)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    return images.written_by_rows(header, job.target, quality)


@contextmanager
def _class_file(
    model: PCSR | Original, size: tuple[int, int], path: Path | None
) -> Iterator[PictureSink]:
    """Where rows and their classes go for the class map; without ``path``, nowhere."""
    if path is None:
        yield lambda *_: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    header = images.outline(Picture(torch.zeros(3, 1, 1)), size)
    with images.written_by_rows(header, path) as put:

        def sink(rows_3nW: Tensor, class_nW: Tensor) -> None:
            image_3nW = rows_3nW.float() / torch.iinfo(rows_3nW.dtype).max
            put(inference.class_map(image_3nW, class_nW, model.num_classes))

        yield sink


def upscale(
    model: PCSR | Original,
    picture: Tensor | PictureRows,
    size: tuple[int, int],
    options: UpscaleOptions,
    bits: int,
    sink: PictureSink,
    progress: Progress | None = None,
) -> RowsDone:
    """One picture under a run's settings, to exactly ``size``; ``sink`` takes its rows in order."""
    execution = inference.Execution(options.precision, options.max_memory)
    if isinstance(picture, Tensor):
        picture = picture.to(model.mean.device)
    return inference.upscale_rows(
        model, picture, size, sink, options.routing, execution, bits, progress
    )


def dry_run(model: PCSR | Original, options: UpscaleOptions) -> None:
    """Upscales a tiny picture, so that wrong settings are reported once, before a batch.

    Raises:
        PCSRError: the settings do not fit each other, the model or the machine; or the model gives
            NaN.
    """
    size = (8, 8) if options.size is not None else options.size_of((4, 4))
    if options.size is not None and isinstance(model, Original):
        size = (4 * model.scale, 4 * model.scale)
    if options.routing.rule.timed and isinstance(model, PCSR):
        # The machine is measured when a picture takes the model, with that picture's scale and the
        # threads that are left by then.
        options = replace(options, routing=RoutingConfig())
    rgb_3hw = torch.linspace(0, 1, 48).reshape(3, 4, 4)
    upscale(model, rgb_3hw, size, options, 8, lambda *_: None)


def _read(source: Path, max_pixels: int) -> tuple[Picture, str]:
    """A picture, and the suffix of a format to give it back in."""
    if source != STREAM:
        picture = images.read(source, max_pixels, as_integers=True)
        return picture, images.own_suffix(source) or images.FALLBACK
    data, own = _from_stdin(_FEWEST_BYTES + _MOST_OF_A_PIXEL * max_pixels)
    return images.decode(data, max_pixels, as_integers=True), own


def _from_stdin(most: int) -> tuple[bytes, str]:
    """A picture file of at most so many bytes, and its suffix; else only the head is read."""
    data = sys.stdin.buffer.read(HEAD_BYTES)
    if not data:
        raise PictureError("-: nothing came from standard input")
    try:
        own = recognise(data).suffixes[0]
        own = own if own in images.SUFFIXES else images.FALLBACK
    except ValueError:
        return data, ""  # the decoder reports what is wrong with it
    held = io.BytesIO(data)
    held.seek(0, io.SEEK_END)
    while piece := sys.stdin.buffer.read(min(_PIECE, most + 1 - held.tell())):
        held.write(piece)
    if held.tell() > most:
        raise PictureError(
            f"-: standard input holds more than {most:,} bytes, which no picture of the pixels "
            "allowed (--max-pixels) takes"
        )
    return held.getvalue(), own

"""The computing behind the page: a request's picture, computed once and stopped in time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from pcsr_lightning.app.all_heavy import AllHeavyRun
from pcsr_lightning.app.choices import AUTOMATIC, BY_BUDGET, Ticket
from pcsr_lightning.app.loading import LIVE_PIXELS, result_size
from pcsr_lightning.app.measure import Meter
from pcsr_lightning.app.runs import FirstRun, Heavy, Run
from pcsr_lightning.app.visitors import Visitor
from pcsr_lightning.batch.models import RunModels
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.images import AlphaRange, bicubic
from pcsr_lightning.images.comparison import eight_bit, shave
from pcsr_lightning.inference import (
    Execution,
    RoutingConfig,
    Session,
    upscaled_alpha,
)
from pcsr_lightning.inference.flops import model_macs
from pcsr_lightning.networks import PCSR
from pcsr_lightning.weights import DEFAULT_MODEL, choose_model, load, photo_counterpart

Report = Callable[[float, str], None]
"""Takes the part of the work that is done, and what is being done."""


class Stopped(Exception):
    """A newer request has come; what was finished of this one is kept."""


@lru_cache(maxsize=8)
def model_named(name: str) -> PCSR:
    """A model, loaded once.

    Raises:
        PCSRError: there is none of that name, or it has no classes.
    """
    model = load(name)
    if not isinstance(model, PCSR) or model.num_classes < 2:
        raise ConfigError(f"{name}: the page needs a PCSR model with two classes or more")
    # What only the first run takes (operators counted, kernels made) is no visitor's time.
    warm = Session(model, torch.zeros(1, 3, 16, 16), scale=2)
    warm.run(RoutingConfig(budget=0.5))
    return model


def models_of(chosen: str) -> RunModels:
    """What pictures take where a visitor chose this: a model, or ``automatic``."""
    names = [chosen] if chosen != AUTOMATIC else [DEFAULT_MODEL, photo_counterpart(DEFAULT_MODEL)]
    return RunModels({name: model_named(name) for name in names if name is not None})


def upscale(visitor: Visitor, ticket: Ticket, max_pixels: int, report: Report) -> Run:
    """The visitor's picture under a request's choices; earlier results are reused.

    Raises:
        Stopped: a newer request has come.
        PCSRError: the picture would be too large, or the model is none.
    """
    number, choices = ticket
    loaded = visitor.loaded
    if loaded is None:
        raise Stopped
    result_size(loaded.size, choices.scale, max_pixels)
    live = min(max_pixels, LIVE_PIXELS)
    window = loaded.window(choices.scale, live, choices.focus)
    lr_size = loaded.size if window is None else window[2:]
    size = result_size(lr_size, choices.scale, live)
    taken = None
    if choices.model == AUTOMATIC:
        choice = choose_model(loaded.condition, (choices.scale, choices.scale))
        choices, taken = replace(choices, model=choice.name), choice.said
    model, floor = model_named(choices.model), floor_percent(choices.model, lr_size, size)
    if choices.way == BY_BUDGET:
        # The browser may not know this model's range yet.
        choices = replace(choices, compute=max(floor, choices.compute))
    key = (number, choices.model, size, window)
    reused = visitor.key == key and visitor.session is not None and visitor.first is not None
    if visitor.key != key:
        visitor.forget_work()
        visitor.key = key
    step = stopping(visitor, ticket, report)
    if visitor.part is None:
        visitor.part, visitor.window = loaded.part(window), window
    part, alpha = visitor.part, visitor.part.alpha
    if visitor.alpha_1HW is None and alpha is not None:
        progress = step("Upscaling the transparency", 0.0, 0.0)
        # Whatever the routing of the colours is, which the visitor will change again.
        with upscaled_alpha(
            model, alpha, size, RoutingConfig(), Execution(), part.bits, progress
        ) as rows:
            visitor.alpha_1HW = rows.take(size[0])
    if visitor.session is None:
        with Meter() as features:
            progress = step("Looking at the picture", 0.0, 0.5)
            lr_13hw = part.rgb[None]
            hidden = None if alpha is None else AlphaRange(alpha).invisible(0, alpha.shape[1])
            visitor.session = Session(
                model, lr_13hw, size=size, unseen_hw=hidden, progress=progress
            )
        visitor.features, visitor.spent = features, 0.0
    visitor.session.policy(choices.routing)  # the machine may have to be measured: in no run's time
    run = Meter()
    try:
        with run:
            start = 0.0 if reused else 0.5
            doing = "Routing again" if reused else "Upscaling"
            result = visitor.session.run(choices.routing, step(doing, start, 1.0))
    finally:
        # What was stopped before has left pixels that the first run to be finished did not make.
        visitor.spent += run.seconds
    check(visitor, ticket)
    if visitor.first is None:
        peak = _highest(visitor.features.peak, visitor.features.held, run.peak)
        visitor.first = FirstRun(visitor.features.seconds + visitor.spent, peak)
    picture = part.upscaled(result.image[0], visitor.alpha_1HW)
    name = loaded.name if window is None else f"{Path(loaded.name).stem}_part"
    visitor.run = Run(ticket, choices, floor, result, picture, name, run.seconds, reused, taken)
    return visitor.run


def floor_percent(name: str, lr_size: tuple[int, int], size: tuple[int, int]) -> int:
    """What all pixels in the lightest class cost, in whole percent of all-heavy, rounded up.

    Args:
        name: of the model.
        lr_size: ``(h, w)``.
        size: ``(H, W)``.
    """
    macs = model_macs(model_named(name)).of_picture(lr_size, size)
    return min(99, math.ceil(100 * macs.all_light / macs.all_heavy - 1e-9))


def cost_percent(run: Run, session: Session) -> float:
    """What a run cost, in percent of all-heavy."""
    return 100e9 * run.result.flops.gmacs / session.macs.all_heavy


def _highest(first: int | None, held: int, then: int | None) -> int | None:
    """The peak of two steps, where so much is held after the first."""
    return then if first is None or then is None else max(first, held + then)


def all_heavy(visitor: Visitor, ticket: Ticket, report: Report) -> Heavy:
    """The all-heavy run beside the one that is there; once for each picture, model and size.

    Its time is that of the features, which it shares with the first run, and of the heaviest
    upsampler at every pixel. Its memory likewise.

    Raises:
        Stopped: a newer request has come. The next call resumes it.
    """
    session = visitor.session
    assert session is not None
    if visitor.heavy is None:
        step = stopping(visitor, ticket, report)
        run = visitor.heavy_run = visitor.heavy_run or AllHeavyRun(session)
        with Meter() as meter:
            image_3HW = run.run(step("All-heavy, to compare with", 0.0, 1.0))
        check(visitor, ticket)
        peak = _highest(visitor.features.peak, run.bytes, meter.peak)
        visitor.heavy = Heavy(image_3HW, session.feature_seconds + run.seconds, peak)
    return visitor.heavy


def check(visitor: Visitor, ticket: Ticket) -> None:
    """Raises :class:`Stopped` if the visitor wants something else by now."""
    if visitor.wanted != ticket:
        raise Stopped


def stopping(
    visitor: Visitor, ticket: Ticket, report: Report
) -> Callable[[str, float, float], Callable[[float], None]]:
    """Makes progress callbacks that report, and stop the work when a newer request has come."""

    def step(doing: str, start: float, stop: float) -> Callable[[float], None]:
        def progress(part: float) -> None:
            check(visitor, ticket)
            report(start + (stop - start) * part, doing)

        check(visitor, ticket)
        return progress

    return step


def bicubic_result(visitor: Visitor) -> Tensor:
    """The plain way to the same size: ``(3, H, W)`` in [0, 1]."""
    assert visitor.part is not None
    assert visitor.session is not None
    return bicubic(visitor.part.rgb, visitor.session.size).clamp(0, 1)


def psnr(image_3HW: Tensor, reference_3HW: Tensor, scale: float) -> float:
    """PSNR on RGB rounded to 8 bit, ``ceil(scale)`` pixels of the border shaved off, in dB."""
    border = math.ceil(scale)
    difference = shave(eight_bit(image_3HW), border) - shave(reference_3HW.float(), border)
    error = float(difference.double().square().mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)

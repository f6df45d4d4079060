"""The computing behind the page: a request's picture, and the files that show it.

Legend: h w LR size, H W HR size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyvips
import torch
from PIL import Image
from torch import Tensor

from pcsr_lightning.app.loading import result_size
from pcsr_lightning.app.measure import Meter
from pcsr_lightning.app.session import FirstRun, Heavy, Run, Session, Ticket
from pcsr_lightning.errors import ConfigError, PCSRError
from pcsr_lightning.images import bicubic, write
from pcsr_lightning.images.comparison import eight_bit, shave
from pcsr_lightning.inference import RoutingConfig, class_colours
from pcsr_lightning.inference.rerouting import Rerouter
from pcsr_lightning.networks import PCSR
from pcsr_lightning.weights import load

LONGEST_NAME = 60
Tell = Callable[[float, str], None]
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
    warm = Rerouter(model, torch.zeros(1, 3, 16, 16), (32, 32))
    warm.run(RoutingConfig(budget=0.5))
    return model


def enlarge(session: Session, ticket: Ticket, max_pixels: int, tell: Tell) -> Run:
    """The session's picture under a request's choices; what is there already is used.

    Raises:
        Stopped: a newer request has come.
        PCSRError: the picture would be too large, or the model is none.
    """
    number, choices = ticket
    loaded = session.loaded
    if loaded is None:
        raise Stopped
    size = result_size(loaded.size, choices.scale, max_pixels)
    model = model_named(choices.model)
    key = (number, choices.model, size)
    reused = session.key == key and session.rerouter is not None and session.first is not None
    if session.key != key:
        session.forget_work()
        session.key = key
    step = stopping(session, ticket, tell)
    if session.rerouter is None:
        with Meter() as features:
            told = step("Looking at the picture", 0.0, 0.5)
            session.rerouter = Rerouter(model, loaded.picture.rgb[None], size, told)
        session.features, session.spent = features, 0.0
    run = Meter()
    try:
        with run:
            start = 0.0 if reused else 0.5
            words = "Routing again" if reused else "Enlarging it"
            result = session.rerouter.run(choices.routing, step(words, start, 1.0))
    finally:
        # What was stopped before has left pixels that the first run to be finished did not make.
        session.spent += run.seconds
    check(session, ticket)
    if session.first is None:
        peak = _highest(session.features.peak, session.features.held, run.peak)
        session.first = FirstRun(session.features.seconds + session.spent, peak)
    session.run = Run(ticket, result, run.seconds, reused)
    return session.run


def _highest(first: int | None, held: int, then: int | None) -> int | None:
    """The peak of two steps, where so much is held after the first."""
    return then if first is None or then is None else max(first, held + then)


def all_heavy(session: Session, ticket: Ticket, tell: Tell) -> Heavy:
    """The all-heavy run beside the one that is there; once for each picture, model and size.

    Its time is that of the features, which it shares with the first run, and of the heaviest
    upsampler at every pixel. Its memory likewise.

    Raises:
        Stopped: a newer request has come. The next call goes on from there.
    """
    rerouter = session.rerouter
    assert rerouter is not None
    if session.heavy is None:
        step = stopping(session, ticket, tell)
        with Meter() as meter:
            heavy = rerouter.all_heavy(step("All-heavy, to compare with", 0.0, 1.0))
        check(session, ticket)
        peak = _highest(session.features.peak, rerouter.heavy_bytes, meter.peak)
        session.heavy = Heavy(heavy.image_3HW, rerouter.feature_seconds + heavy.seconds, peak)
    return session.heavy


def check(session: Session, ticket: Ticket) -> None:
    """Raises :class:`Stopped` if the session wants something else by now."""
    if session.wanted != ticket or session.number != ticket[0]:
        raise Stopped


def stopping(
    session: Session, ticket: Ticket, tell: Tell
) -> Callable[[str, float, float], Callable[[float], None]]:
    """Makes progress callbacks that tell, and stop the work when a newer request has come."""

    def step(words: str, start: float, stop: float) -> Callable[[float], None]:
        def told(part: float) -> None:
            check(session, ticket)
            tell(start + (stop - start) * part, words)

        check(session, ticket)
        return told

    return step


def enlarged_bicubic(session: Session) -> Tensor:
    """The plain way to the same size: ``(3, H, W)`` in [0, 1]."""
    assert session.loaded is not None
    assert session.rerouter is not None
    return bicubic(session.loaded.picture.rgb, session.rerouter.size).clamp(0, 1)


def enlarged_alpha(session: Session) -> Tensor | None:
    """The transparency at the result's size."""
    assert session.loaded is not None
    assert session.rerouter is not None
    alpha = session.loaded.picture.alpha
    return None if alpha is None else bicubic(alpha, session.rerouter.size).clamp(0, 1)


def save_view(session: Session, name: str, rgb_3HW: Tensor) -> Path:
    """A picture as the browser shows it: 8 bit, lossless, in the file's own colour space."""
    assert session.loaded is not None
    alpha = enlarged_alpha(session)
    whole = rgb_3HW if rgb_3HW.dtype == torch.uint8 else eight_bit(rgb_3HW).to(torch.uint8)
    parts = [whole] if alpha is None else [whole, eight_bit(alpha).to(torch.uint8)]
    pixels = np.ascontiguousarray(torch.cat(parts).permute(1, 2, 0).cpu().numpy())
    path, icc = session.new_file(), session.loaded.picture.metadata.icc
    image = pyvips.Image.new_from_array(pixels, interpretation="srgb")
    if icc is not None and icc[16:20] == b"RGB ":
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    # Speed counts here, not size: the way to the browser is short.
    image.pngsave(str(path), compression=1, filter="sub")
    session.keep_view(name, path)
    return path


def save_map(session: Session, class_HW: Tensor) -> Path:
    """The classes as a picture of few colours, to be laid over the result."""
    assert session.rerouter is not None
    colours = (class_colours(session.rerouter.num_classes) * 255).round().to(torch.uint8)
    image = Image.fromarray(class_HW.cpu().numpy(), "P")
    image.putpalette(colours.flatten().tolist())
    path = session.new_file()
    image.save(path, compress_level=1)
    session.keep_view("map", path)
    return path


def save_result(session: Session) -> Path:
    """The result as a file to take away: PNG with the bit depth, alpha and profile it came with.

    It has the picture's name, in a folder that nobody can guess.

    Raises:
        PCSRError: there is none.
    """
    loaded, run = session.loaded, session.run
    if loaded is None or run is None or session.rerouter is None:
        raise PCSRError("there is no result yet: drop a picture, or choose a sample")
    picture = loaded.picture.enlarged(run.result.image[0], enlarged_alpha(session))
    scale = run.ticket[1].scale
    path = session.new_file("") / f"{plain_name(loaded.name)}_x{scale:g}.png"
    path.parent.mkdir()
    write(picture, path)
    session.keep_view("download", path)
    return path


def plain_name(name: str) -> str:
    """A file's name without its suffix and whatever could mean anything in a path or a header."""
    kept = "".join(c if c.isalnum() or c in " -_.()" else "_" for c in Path(name).stem)
    return kept.strip(" .")[:LONGEST_NAME] or "picture"


def psnr(image_3HW: Tensor, reference_3HW: Tensor, scale: float) -> float:
    """PSNR on RGB rounded to 8 bit, ``ceil(scale)`` pixels of the border shaved off, in dB."""
    border = math.ceil(scale)
    whole = reference_3HW.float() / 255
    difference = shave(eight_bit(image_3HW), border) - shave(eight_bit(whole), border)
    error = float(difference.double().square().mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)

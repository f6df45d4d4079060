"""What came of a visitor's requests."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pcsr_lightning.app.choices import Choices, Ticket
from pcsr_lightning.images import Picture
from pcsr_lightning.inference import UpscaleResult


@dataclass
class FirstRun:
    """What the first upscaling of the picture took.

    Attributes:
        seconds: all of it, with what newer requests interrupted.
        peak: bytes beyond what was held before.
    """

    seconds: float
    peak: int | None


@dataclass
class Heavy:
    """The all-heavy run of a picture."""

    image_3HW: Tensor
    seconds: float
    peak: int | None


@dataclass
class Run:
    """What came of the last request.

    Attributes:
        choices: the request's, but never below the floor, and with the model that was taken.
        floor: the lowest cost there is, in whole percent of all-heavy.
        picture: to be written: the result with what the file it came from had besides.
        name: of that file.
        seconds: for this very routing, the features being there.
        reused: features and probabilities were there already.
        taken: the model that was taken and why, where the visitor left it to the page.
    """

    ticket: Ticket
    choices: Choices
    floor: int
    result: UpscaleResult
    picture: Picture
    name: str
    seconds: float
    reused: bool
    taken: str | None = None

"""``seconds``: as ``budget``, with the time that a picture takes on this machine as its cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.routing.policy import Parameter, RoutingPolicy, register
from pcsr_lightning.routing.rules.budget import Budget

if TYPE_CHECKING:
    from pcsr_lightning.routing.config import RoutingConfig
    from pcsr_lightning.routing.cost import PictureMacs


@register
class Seconds(Budget):
    """The hardest pixels are paid for first, up to a time.

    Attributes:
        floor: what the picture takes with every pixel in the lightest class, in seconds.
    """

    name = "seconds"
    help = (
        "spend at most this time on a picture, in seconds, on the hardest pixels first; what this "
        "machine takes is measured once for a model"
    )
    parameter = Parameter(
        "a number of seconds above 0", valid=lambda seconds: seconds > 0, metavar="SECONDS"
    )
    timed = True

    def __init__(self, config: RoutingConfig, macs: PictureMacs) -> None:
        RoutingPolicy.__init__(self, config, macs)
        assert config.value is not None
        if macs.seconds is None:
            raise ConfigError("the time of this picture is not known here: give a budget instead")
        self.allowed, self.pixel_M = config.value, macs.seconds.pixel_M
        self.limit = config.value - macs.seconds.fixed
        self.floor = macs.seconds.fixed + macs.pixels * self.pixel_M[-1]

    @classmethod
    def fixed(cls, value: float | None) -> int | None:  # noqa: ARG003 - whatever it is
        return None

    def note(self) -> str | None:
        """Of a time that is too short."""
        if self.num_classes == 1:
            return "the time is not kept: this model has one class only"
        if self.allowed < self.floor:
            return f"the least this model can do is {in_words(self.floor)} here"
        return None


def in_words(seconds: float) -> str:
    """``6.2 s``, ``0.213 s``."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.3f} s"

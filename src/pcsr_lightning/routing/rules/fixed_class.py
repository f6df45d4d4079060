"""``fixed_class``: every pixel takes the same class, and no classifier runs."""

from __future__ import annotations

from pcsr_lightning.routing.policy import Parameter, RoutingPolicy, register


@register
class FixedClass(RoutingPolicy):
    """All pixels to one upsampler."""

    name = "fixed_class"
    help = "send every pixel to one upsampler; 0 is the heaviest"
    parameter = Parameter(
        "the number of a class, 0 being the heaviest",
        valid=lambda j: j >= 0,
        integer=True,
        metavar="J",
    )

    @classmethod
    def describe(cls, value: float | None) -> str:
        return f"class {value} alone"

    @classmethod
    def fixed(cls, value: float | None) -> int | None:
        assert value is not None
        return int(value)

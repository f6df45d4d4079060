"""Which rule decides, with which value: everything a user can ask for, as plain values."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.routing.policy import RULES, RoutingPolicy

if TYPE_CHECKING:
    from pcsr_lightning.routing.cost import PictureMacs

REFINED_FROM = 4.0
"""The scale from which seams are smoothed unless asked otherwise.

There a low-resolution pixel has become 16 or more, and the mean over 3 x 3 of them hides seams. At
lower scales it blurs what is really there: 0.1 dB at x2, 0.5 dB at x1.5 with ``carn-pcsr-multi``.
"""


class CostRule(StrEnum):
    """How FLOPs become the costs of Eq. 9, see :func:`~pcsr_lightning.routing.cost.class_costs`."""

    SOFTMAX = "softmax"
    PROPORTIONAL = "proportional"

    @classmethod
    def parse(cls, value: object) -> CostRule:
        """The rule of that name.

        Raises:
            ConfigError: there is none.
        """
        try:
            return cls(value)  # type: ignore[arg-type]
        except ValueError:
            names = " or ".join(rule.value for rule in cls)
            raise ConfigError(f"the cost rule must be {names}, not {value!r}") from None


def routing_defaults() -> dict[str, Any]:
    """What a config file sets for ``routing`` by default: the mode, each rule's value, the rest."""
    values = {name: None for name, rule in RULES.items() if rule.parameter is not None}
    return {"mode": None, **values, "cost": CostRule.SOFTMAX.value, "refine": None}


@dataclass(frozen=True, init=False)
class RoutingConfig:
    """Which upsampler each pixel takes, and what is done about the seams.

    Args:
        mode: the name of a rule in :data:`~pcsr_lightning.routing.RULES`. If it is not given, the
            rule is the one that has a value, or else ``"k"``.
        cost: for the rules ``k`` and ``budget``: how FLOPs become the costs of Eq. 9, ``"softmax"``
            or ``"proportional"``. With two classes it does not matter for a budget.
        refine: whether light pixels beside heavy ones are smoothed (Sec. 3.4). ``None``: by the
            scale, see :meth:`refines`.
        values: the rule's own value under the rule's name, such as ``k=0.5``, ``budget=0.6`` or
            ``fixed_class=1``; ``adaptive=True`` for a rule that takes none.

    Attributes:
        value: the rule's own value; ``None`` for a rule that takes none.

    Raises:
        ConfigError: an unknown rule, a value that it does not take, or values of two rules.

    Example:
        >>> RoutingConfig(k=0.5).mode, RoutingConfig("budget", budget=0.6).value
        ('k', 0.6)
    """

    mode: str
    value: float | None
    cost: CostRule
    refine: bool | None

    def __init__(
        self,
        mode: str | None = None,
        *,
        cost: CostRule | str = CostRule.SOFTMAX,
        refine: bool | None = None,
        **values: Any,
    ) -> None:
        mode = None if mode is None else str(mode).strip().lower()
        if mode is not None and mode.isascii() and mode.isdigit():
            warnings.warn(
                f"the routing mode {mode!r} is deprecated: use fixed_class={mode}",
                DeprecationWarning,
                stacklevel=2,
            )
            mode, values = "fixed_class", {**values, "fixed_class": int(mode)}
        if not isinstance(refine, bool | None):
            raise ConfigError(
                f"refine must be true, false, or None for the scale's, not {refine!r}"
            )
        name = _chosen(mode, _given(values))
        object.__setattr__(self, "mode", name)
        object.__setattr__(self, "value", _checked(name, values.get(name)))
        object.__setattr__(self, "cost", CostRule.parse(cost))
        object.__setattr__(self, "refine", refine)

    @property
    def rule(self) -> type[RoutingPolicy]:
        """The class of the rule."""
        return RULES[self.mode]

    @property
    def description(self) -> str:
        """In a few words: ``k = 0.5``, ``adaptive``, ``budget = 0.5``, ``class 1 alone``."""
        return self.rule.describe(self.value)

    @property
    def fixed_class(self) -> int | None:
        """The one class that every pixel takes; ``None`` if each pixel has a choice."""
        return self.rule.fixed(self.value)

    def refines(self, scale: Sequence[float]) -> bool:
        """Whether seams are smoothed at this (vertical, horizontal) scale."""
        return min(scale) >= REFINED_FROM if self.refine is None else self.refine

    def to_dict(self) -> dict[str, Any]:
        """As ``metrics.json`` keeps it: ``RoutingConfig(**config.to_dict()) == config``.

        Rules that are not used have the value ``None``.
        """
        values = {
            name: self.value if name == self.mode else None
            for name, rule in RULES.items()
            if rule.parameter is not None
        }
        return {"mode": self.mode, "cost": self.cost.value, "refine": self.refine, **values}

    def replace(self, **changes: Any) -> RoutingConfig:
        """The same but for these arguments."""
        return RoutingConfig(**(self.to_dict() | changes))


def make_policy(config: RoutingConfig, macs: PictureMacs) -> RoutingPolicy:
    """The rule that a config names, for a picture with these costs.

    Raises:
        ConfigError: it names a class that the network does not have.
    """
    return config.rule(config, macs)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """The values that ask for something: those that are not their rule's default."""
    for name in values:
        if name not in RULES:
            raise ConfigError(f"there is no routing rule {name!r}; there are {', '.join(RULES)}")
    given = {}
    for name, value in values.items():
        parameter = RULES[name].parameter
        unset = (None, False) if parameter is None else (None, parameter.default)
        if not any(value is u or (value == u and type(value) is not bool) for u in unset):
            given[name] = value
    return given


def _chosen(mode: str | None, given: dict[str, Any]) -> str:
    """The name of the rule."""
    said = [name if value is True else f"{name}={value}" for name, value in given.items()]
    if mode is None:
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(said)} exclude each other: give one of them")
        return next(iter(given), "k")
    if mode not in RULES:
        *names, last = RULES
        raise ConfigError(f"the routing mode must be {', '.join(names)} or {last}, not {mode!r}")
    for name, one in zip(given, said, strict=True):
        if name != mode:
            raise ConfigError(
                f"{one} is for the routing mode {name!r}, not for {mode!r}: set that mode, or "
                f"leave {one} out"
            )
    return mode


def _checked(name: str, value: object) -> float | None:
    """The value of the rule."""
    parameter = RULES[name].parameter
    if parameter is None:
        if not isinstance(value, bool | None):
            raise ConfigError(f"{name} takes no value, only true or false, not {value!r}")
        return None
    if value is None:
        value = parameter.default
    if value is None:
        raise ConfigError(f"the routing mode {name!r} needs {name}: {parameter.expected}")
    return parameter.check(name, value)

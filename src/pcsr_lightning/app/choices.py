"""What a visitor asks for: the page's controls, and one request."""

from __future__ import annotations

from dataclasses import dataclass

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference import RoutingConfig

LOWEST_BUDGET = 1e-6
DEFAULT_SCALE, DEFAULT_SECONDS = 4.0, 2.0
AUTOMATIC, BY_BUDGET, BY_K, BY_SECONDS = "automatic", "compute budget", "k", "seconds"
WAYS = (AUTOMATIC, BY_BUDGET, BY_K, BY_SECONDS)
"""Ways to choose pixels; the first also stands for a model chosen by the picture."""
MIDDLE = (0.5, 0.5)


@dataclass(frozen=True)
class Choices:
    """What the page's controls say.

    Attributes:
        model: a name or file, or ``automatic``.
        scale: 1 to 8.
        compute: the budget in percent of the all-heavy cost.
        way: ``automatic``, ``compute budget``, ``k`` or ``seconds``.
        k: for the way ``k``.
        seconds: for the way ``seconds``.
        focus: which part of a large picture is looked at, as parts of height and width.
    """

    model: str
    scale: float
    compute: float = 70.0
    way: str = BY_BUDGET
    k: float = 0.0
    seconds: float = 0.0
    focus: tuple[float, float] = MIDDLE

    @classmethod
    def sent(
        cls,
        model: str,
        scale: float | None,
        compute: float | None,
        way: str,
        k: float | None,
        seconds: float | None,
    ) -> Choices:
        """As the browser sends them; an emptied number box has its first value.

        What does not count is left out, so that it makes no other request of the same one.

        Raises:
            ConfigError: no browser sends such values.
        """
        if way not in WAYS:
            raise ConfigError(f"no way to choose pixels is called {way!r}")
        return cls(
            model,
            DEFAULT_SCALE if scale is None else float(scale),
            (100.0 if compute is None else float(compute)) if way == BY_BUDGET else 0.0,
            way,
            float(k or 0) if way == BY_K else 0.0,
            float(seconds or DEFAULT_SECONDS) if way == BY_SECONDS else 0.0,
        )

    @property
    def routing(self) -> RoutingConfig:
        """As the library takes it. At 0 % every pixel goes to the lightest class."""
        if self.way == BY_K:
            return RoutingConfig(k=float(self.k))
        if self.way == BY_SECONDS:
            return RoutingConfig(seconds=self.seconds)
        if self.way == AUTOMATIC:
            return RoutingConfig("adaptive")
        return RoutingConfig(budget=min(1.0, max(LOWEST_BUDGET, self.compute / 100)))


Ticket = tuple[int, Choices]
"""One request: which picture (they are numbered) under which choices."""

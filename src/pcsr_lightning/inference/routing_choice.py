"""How the pixels of a picture are shared among the classes: one value that holds every choice."""

from __future__ import annotations

from dataclasses import dataclass

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference.checks import is_number
from pcsr_lightning.routing import CostRule


@dataclass(frozen=True)
class Routing:
    """Which upsampler each pixel takes, and what is done about the seams.

    Attributes:
        mode: ``"k"`` (Eq. 10), ``"adaptive"`` (ADM), or a class number: ``"0"`` sends every pixel
            to the heaviest upsampler.
        k: for mode ``"k"``: lower is heavier, 0 takes the most probable class.
        cost: for mode ``"k"``: how FLOPs become the costs of Eq. 9;
            ``"softmax"`` or ``"proportional"``.
        refine: whether light pixels beside heavy ones are smoothed (Sec. 3.4).

    Raises:
        ConfigError: a value that is none of these.
    """

    mode: str = "k"
    k: float = 0.0
    cost: CostRule | str = CostRule.SOFTMAX
    refine: bool = True

    def __post_init__(self) -> None:
        # Settings read from YAML or a command line bring numbers and plain strings.
        mode = str(self.mode).strip().lower()
        if mode not in ("k", "adaptive") and not (mode.isascii() and mode.isdigit()):
            raise ConfigError(
                f"the routing mode must be 'k', 'adaptive' or a class number (0 is the heaviest), "
                f"not {self.mode!r}"
            )
        try:
            cost = CostRule(self.cost)
        except ValueError:
            names = " or ".join(rule.value for rule in CostRule)
            raise ConfigError(f"the cost rule must be {names}, not {self.cost!r}") from None
        if not is_number(self.k):
            raise ConfigError(f"k must be a finite number, not {self.k!r}")
        if not isinstance(self.refine, bool):
            raise ConfigError(f"refine must be true or false, not {self.refine!r}")
        object.__setattr__(self, "mode", mode)
        object.__setattr__(self, "k", float(self.k))
        object.__setattr__(self, "cost", cost)

    @property
    def single(self) -> int | None:
        """The one class that every pixel takes, or ``None`` where each pixel has a choice."""
        return int(self.mode) if self.mode.isdigit() else None

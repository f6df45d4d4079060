"""How the pixels of a picture are shared among the classes: one value that holds every choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference.checks import is_number
from pcsr_lightning.routing import CostRule, refines_at


@dataclass(frozen=True)
class Routing:
    """Which upsampler each pixel takes, and what is done about the seams.

    Attributes:
        mode: ``"k"`` (Eq. 10), ``"adaptive"`` (ADM), ``"budget"`` (Eq. 10 with the smallest ``k``
            that a budget can pay for), or a class number: ``"0"`` sends every pixel to the heaviest
            upsampler.
        k: for mode ``"k"``: lower is heavier, 0 takes the most probable class.
        cost: for modes ``"k"`` and ``"budget"``: how FLOPs become the costs of Eq. 9;
            ``"softmax"`` or ``"proportional"``. Under a budget it matters for three classes or
            more.
        refine: whether light pixels beside heavy ones are smoothed (Sec. 3.4). ``None``: by the
            scale, see :func:`~pcsr_lightning.routing.refines_at`.
        budget: for mode ``"budget"``, and only for it: which share of the all-heavy cost each
            picture may take, above 0 and up to 1.

    Raises:
        ConfigError: a value that is none of these.
    """

    mode: str = "k"
    k: float = 0.0
    cost: CostRule | str = CostRule.SOFTMAX
    refine: bool | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        # Settings read from YAML or a command line bring numbers and plain strings.
        mode = str(self.mode).strip().lower()
        if mode not in ("k", "adaptive", "budget") and not (mode.isascii() and mode.isdigit()):
            raise ConfigError(
                f"the routing mode must be 'k', 'adaptive', 'budget' or a class number (0 is the "
                f"heaviest), not {self.mode!r}"
            )
        try:
            cost = CostRule(self.cost)
        except ValueError:
            names = " or ".join(rule.value for rule in CostRule)
            raise ConfigError(f"the cost rule must be {names}, not {self.cost!r}") from None
        if not is_number(self.k):
            raise ConfigError(f"k must be a finite number, not {self.k!r}")
        if not isinstance(self.refine, bool | None):
            raise ConfigError(
                f"refine must be true or false, or None for the scale's, not {self.refine!r}"
            )
        _check_budget(mode, self.budget)
        object.__setattr__(self, "mode", mode)
        object.__setattr__(self, "k", float(self.k))
        object.__setattr__(self, "cost", cost)
        if self.budget is not None:
            object.__setattr__(self, "budget", float(self.budget))

    def refines(self, scale: Sequence[float]) -> bool:
        """Whether seams are smoothed at this (vertical, horizontal) scale."""
        return refines_at(scale, self.refine)

    @property
    def single(self) -> int | None:
        """The one class that every pixel takes, or ``None`` where each pixel has a choice.

        A budget of 1 buys the heaviest everywhere, and there is nothing left to pay a classifier.
        """
        if self.mode == "budget" and self.budget == 1:
            return 0
        return int(self.mode) if self.mode.isdigit() else None


def _check_budget(mode: str, budget: object) -> None:
    if mode != "budget":
        if budget is not None:
            raise ConfigError(
                f"a budget is for the routing mode 'budget', not for {mode!r}: set that mode, or "
                f"leave budget={budget} out"
            )
        return
    if budget is None:
        raise ConfigError(
            "the routing mode 'budget' needs a budget: a share of the all-heavy cost, such as 0.5"
        )
    if not is_number(budget) or not 0 < budget <= 1:
        raise ConfigError(
            "the budget must be a share of the all-heavy cost, a number above 0 and up to 1, "
            f"not {budget!r}"
        )

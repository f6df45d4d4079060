"""What a routing rule is: one class that says everything about it.

Legend: B batch, M classes, c scores of a pixel, n HR rows of a strip, H W HR size. Class 0 is the
heaviest.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeGuard, TypeVar

from pcsr_lightning.errors import ConfigError

# Command lines and their help are made from these classes: torch is imported inside methods, and
# dataclasses, which are slow to import, are avoided.
if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pcsr_lightning.routing.config import RoutingConfig
    from pcsr_lightning.routing.cost import PictureMacs
    from pcsr_lightning.routing.histogram import ScoreHistogram


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number; a bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Parameter(NamedTuple):
    """The one value that a rule is given: ``k=0.5``, ``--budget 50%``.

    Attributes:
        expected: what it must be, in words that follow "must be".
        valid: whether a finite number is such a value.
        default: ``None`` if it must be given.
        integer: whether it is a whole number.
        percent: whether a command line may give it as ``50%``.
        metavar: how help texts call it.
    """

    expected: str
    valid: Callable[[float], bool] = lambda _: True
    default: float | None = None
    integer: bool = False
    percent: bool = False
    metavar: str | None = None

    def check(self, name: str, value: object) -> float:
        """``value`` as a number.

        Raises:
            ConfigError: it is none that the rule takes.
        """
        if not is_number(value) or not self.valid(value) or (self.integer and value != int(value)):
            raise ConfigError(f"{name} must be {self.expected}, not {value!r}")
        return int(value) if self.integer else float(value)

    def parse(self, text: str) -> float:
        """A command line's word as a number; :meth:`check` comes later.

        Raises:
            ValueError: it is no number.
        """
        if self.integer:
            if not text.isascii() or not text.isdecimal() or len(text) > 9:
                raise ValueError(text)
            return int(text)
        percent = self.percent and text.endswith("%")
        return float(text[:-1]) / 100 if percent else float(text)


class RoutingPolicy(ABC):
    """A rule for one model and picture size.

    A subclass either gives :meth:`assign_pixels`, where pixels are independent, or sets
    ``whole_picture`` and gives :meth:`score`, :meth:`assign` and :meth:`histogram`.

    Args:
        config: the routing asked for.
        macs: what the picture costs.

    Attributes:
        name: of the rule; also the name of its parameter, of ``routing.NAME`` and of ``--NAME``.
        help: one sentence for help texts.
        parameter: the value that it takes; ``None`` if it takes none.
        whole_picture: whether a pixel's class depends on all pixels of its picture.
        charges_every_class: whether the first layer of every class counts as executed on the whole
            picture as soon as pixels take several classes, so that the cost does not depend on how
            the picture is cut into strips.
        per_lr_pixel: whether all HR pixels of an LR pixel take one class, for rules that look at
            the whole picture. :meth:`assign` and :meth:`histogram` are then given, for each LR
            pixel, the means of its HR pixels' scores, and behind them the number of its HR pixels.
        timed: whether it needs ``macs.seconds``.
        fixed_class: the one class that every pixel takes; ``None`` if each pixel has a choice.

    Raises:
        ConfigError: it names a class that the network does not have.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    parameter: ClassVar[Parameter | None] = None
    whole_picture: ClassVar[bool] = False
    charges_every_class: ClassVar[bool] = False
    per_lr_pixel: ClassVar[bool] = False
    timed: ClassVar[bool] = False

    def __init__(self, config: RoutingConfig, macs: PictureMacs) -> None:
        self.config, self.macs, self.num_classes = config, macs, len(macs.pixel_M)
        fixed = config.fixed_class
        if fixed is not None and fixed >= self.num_classes:
            raise ConfigError(
                f"there is no class {fixed}: this network has {self.num_classes}, from 0 "
                f"(heaviest) to {self.num_classes - 1}"
            )
        self.fixed_class = 0 if self.num_classes == 1 else fixed

    @classmethod
    def describe(cls, value: float | None) -> str:
        """The routing in a few words, for tables and figures."""
        return cls.name if value is None else f"{cls.name} = {value:g}"

    @classmethod
    def fixed(cls, value: float | None) -> int | None:  # noqa: ARG003 - for subclasses
        """The class that every pixel takes with this value; ``None`` if each has a choice."""
        return None

    def note(self) -> str | None:
        """What the user should know of this routing of this picture, in one sentence."""
        return None

    @property
    def needs_whole_picture(self) -> bool:
        """Whether all pixels must be looked at before the first class is known."""
        return self.whole_picture and self.fixed_class is None

    @cached_property
    def costs_M(self) -> Tensor:
        """The cost of each class by Eq. 9."""
        from pcsr_lightning.routing.cost import class_costs

        return class_costs(self.macs.branches_M, self.config.cost)

    @property
    def num_scores(self) -> int:
        """``c``: how many float32 numbers :meth:`assign` is given of a pixel."""
        return 1

    def assign_pixels(self, logits_BMHW: Tensor) -> Tensor:
        """The classes of any pixels, each by itself: ``(B, H, W)``, uint8."""
        raise NotImplementedError(f"{self.name} needs whole pictures")

    def logit_biases(self) -> list[float] | None:
        """Of a rule that takes the class with the largest logit, the heaviest of equals, once
        these are added; ``None`` for others."""
        return None

    def score(self, logits_BMHW: Tensor) -> Tensor:
        """The routing scores of any HR pixels, all that is kept of them: ``(B, c, H, W)``.

        It depends on the logits and :attr:`costs_M` alone, not on the rule's value.
        """
        raise NotImplementedError(f"{self.name} assigns single pixels")

    def assign(self, score_BcHW: Tensor) -> Tensor:
        """The classes of whole pictures from all their scores: ``(B, H, W)``, uint8."""
        raise NotImplementedError(f"{self.name} assigns single pixels")

    def histogram(self) -> ScoreHistogram:
        """Counts a picture's scores where they do not fit into memory."""
        raise NotImplementedError(f"{self.name} assigns single pixels")

    def assign_constant(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """:attr:`fixed_class` at every pixel, uint8."""
        import torch

        assert self.fixed_class is not None
        return torch.full(shape, self.fixed_class, dtype=torch.uint8, device=device)


RULES: dict[str, type[RoutingPolicy]] = {}
"""Every rule by its name."""

Rule = TypeVar("Rule", bound=RoutingPolicy)


def register(rule: type[Rule]) -> type[Rule]:
    """Makes a rule known to Python, command lines, configs and reports.

    Raises:
        ConfigError: another rule has that name.
    """
    if RULES.setdefault(rule.name, rule) is not rule:
        raise ConfigError(f"there is a routing rule {rule.name!r} already")
    return rule

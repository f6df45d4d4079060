"""Who decides a pixel's class: the rules, what they need to know, and their arithmetic.

A :class:`RoutingConfig` says in plain values which rule is wanted; :func:`make_policy` makes the
rule's :class:`RoutingPolicy` for one picture size. Every rule is a file in :mod:`.rules`. They use

- :mod:`.by_k` (Eq. 10), :mod:`.adm` (Appendix A) and :mod:`.budget`: classes of whole tensors;
- :mod:`.histogram` and :mod:`.scores`: pictures whose scores do not fit into memory;
- :mod:`.oracle`: classes by the ground truth, which bound every rule;
- :mod:`.cost` (Eq. 9) and :mod:`.refine` (Sec. 3.4).

Everything here takes numbers and tensors, never a model. What this file exports is imported without
torch, and the configuration only when it is asked for: command lines are made from the rules.
"""

from typing import TYPE_CHECKING, Any

from pcsr_lightning.routing import rules as rules  # each file there registers its rule
from pcsr_lightning.routing.policy import RULES, Parameter, RoutingPolicy, register

if TYPE_CHECKING:
    from pcsr_lightning.routing.config import CostRule, RoutingConfig, make_policy, routing_defaults

__all__ = [
    "RULES",
    "CostRule",
    "Parameter",
    "RoutingConfig",
    "RoutingPolicy",
    "make_policy",
    "register",
    "routing_defaults",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from pcsr_lightning.routing import config

        return getattr(config, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

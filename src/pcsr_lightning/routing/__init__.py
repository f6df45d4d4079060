"""Who decides a pixel's class: the rules, what they need to know, and their arithmetic.

A :class:`RoutingConfig` says in plain values which rule is wanted; :func:`make_policy` makes the
rule's :class:`RoutingPolicy` for one picture size. Every rule is a file in :mod:`.rules`. They use

- :mod:`.by_k` (Eq. 10), :mod:`.adm` (Appendix A) and :mod:`.budget`: classes of whole tensors;
- :mod:`.histogram` and :mod:`.scores`: pictures whose scores do not fit into memory;
- :mod:`.cost` (Eq. 9) and :mod:`.refine` (Sec. 3.4).

Everything here takes numbers and tensors, never a model. What this file exports is imported without
torch, so that command lines can be made from it.
"""

from pcsr_lightning.routing.config import CostRule, RoutingConfig, make_policy, routing_defaults
from pcsr_lightning.routing.policy import RULES, Parameter, RoutingPolicy, register

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

"""What each class costs, as the decision of Eq. 10 sees it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError


class CostRule(StrEnum):
    """How FLOPs become costs."""

    SOFTMAX = "softmax"
    PROPORTIONAL = "proportional"


def class_costs(branches_M: Sequence[float], rule: CostRule | str = CostRule.SOFTMAX) -> Tensor:
    """The cost of each class, Eq. 9.

    A softmax of raw FLOPs is one-hot and changes with the resolution they were counted at, against
    the paper's footnote 3. FLOPs are therefore divided by their sum first. The published code does
    only that division: ``proportional`` keeps it, and is the rule under which published values of
    ``k`` mean the same.

    Args:
        branches_M: ``flops(B) + flops(U_j)`` at any fixed resolution, heaviest first.
        rule: ``softmax`` (of the shares) or ``proportional`` (the shares themselves).

    Returns:
        Costs ``(M,)``, float64, positive, with sum 1.

    Raises:
        ConfigError: an unknown rule, or FLOPs that are not positive and finite.
    """
    flops_M = torch.tensor(list(branches_M), dtype=torch.float64)
    if not len(flops_M) or not bool(((flops_M > 0) & flops_M.isfinite()).all()):
        raise ConfigError(f"branch FLOPs must be positive and finite, not {list(branches_M)}")
    share_M = flops_M / flops_M.sum()
    try:
        rule = CostRule(rule)
    except ValueError:
        names = " or ".join(r.value for r in CostRule)
        raise ConfigError(f"the cost rule must be {names}, not {rule!r}") from None
    return share_M.softmax(dim=0) if rule is CostRule.SOFTMAX else share_M

"""What PCSR's own stages share: the query pixels of a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import PCSR
from pcsr_lightning.training.losses import needs_pictures
from pcsr_lightning.training.modules.base import SRStage


class PCSRStage(SRStage):
    """A stage of PCSR, trained on some or all HR pixels of each crop.

    Args:
        network: a PCSR with as many upsamplers as the stage's number.
        queries: how many HR pixels of each crop are drawn a step; ``None`` takes all of them.
        seed: of that draw.
        options: further arguments of :class:`SRStage`.

    Raises:
        ConfigError: a value out of range.
    """

    network: PCSR

    def __init__(
        self, network: PCSR, *, queries: int | None = None, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(network, **options)
        if queries is not None and queries < 1:
            raise ConfigError(f"stage.queries={queries}: must be at least 1, or null for all")
        if queries is not None and needs_pictures(self.loss):
            raise ConfigError(
                f"stage.queries={queries}: this loss needs pictures and not drawn pixels; set "
                "stage.queries=null"
            )
        self.queries, self.seed = queries, seed

    def draw_queries(self, size: tuple[int, int]) -> Tensor | None:
        """Flat indices of this step's query pixels, the same for all crops of the batch."""
        total = size[0] * size[1]
        if self.queries is None or self.queries >= total:
            return None
        return torch.randint(total, (self.queries,), generator=self.generator()).to(self.device)

    def generator(self) -> torch.Generator:
        """Random numbers of this step, which a resumed run draws as the uninterrupted one would."""
        return torch.Generator().manual_seed((self.seed << 32) + self.global_step)


def at_queries(hr_B3HW: Tensor, queries_Q: Tensor | None) -> Tensor:
    """The ground truth at the query pixels, ``(B, 3, Q)``; all pixels for ``None``."""
    hr_B3Q = hr_B3HW.flatten(2)
    return hr_B3Q if queries_Q is None else hr_B3Q.index_select(2, queries_Q)

"""What PCSR's own stages share: the query pixels of a step, and its strength of denoising."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import (
    PCSR,
    CellQueries,
    PaddedTwin,
    PCSROutput,
    biases_at,
    bilinear_at,
    has_bias_shifts,
)
from pcsr_lightning.training.losses import needs_pictures
from pcsr_lightning.training.modules.base import SRStage
from pcsr_lightning.training.modules.batches import TrainBatch, as_float, common_size

_PER_PIXEL = re.compile(r"per_pixel:([1-9]\d*)")


class PCSRStage(SRStage):
    """A stage of PCSR, trained on some or all HR pixels of each crop.

    Args:
        network: a PCSR with as many upsamplers as the stage's number.
        queries: which HR pixels of each crop a step trains on: so many, drawn from all of them and
            the same for all crops of a batch; ``per_pixel:N``, ``N`` of every LR pixel, drawn for
            each crop by itself; ``None`` takes all of them.
        seed: of that draw.
        full_strength: of a network with bias shifts, the share of the steps that train it to clean
            all; in the others it learns to keep a part, drawn for each step.
        options: further arguments of :class:`SRStage`.

    Raises:
        ConfigError: a value out of range.
    """

    network: PCSR

    def __init__(
        self,
        network: PCSR,
        *,
        queries: int | str | None = None,
        seed: int = 0,
        full_strength: float = 0.67,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        self._twin: PaddedTwin | None = None
        per_pixel = _PER_PIXEL.fullmatch(queries) if isinstance(queries, str) else None
        fits = per_pixel or queries is None or (isinstance(queries, int) and queries >= 1)
        if not fits:
            raise ConfigError(
                f"stage.queries={queries}: must be a whole number of at least 1, per_pixel:N for N "
                "random HR pixels of every LR pixel, such as per_pixel:2, or null for all pixels"
            )
        if queries is not None and needs_pictures(self.loss):
            raise ConfigError(
                f"stage.queries={queries}: this loss needs pictures and not drawn pixels; set "
                "stage.queries=null"
            )
        if not 0 <= full_strength <= 1:
            raise ConfigError(f"stage.full_strength={full_strength}: must be a share in [0, 1]")
        self.queries, self.seed, self.full_strength = queries, seed, full_strength
        self._per_pixel = None if per_pixel is None else int(per_pixel[1])

    def draw_queries(self, batch: TrainBatch) -> Tensor | CellQueries | None:
        """This step's query pixels, as :meth:`PCSR.forward` takes them; ``None`` for all.

        Raises:
            ConfigError: crops have sizes of their own, and ``queries`` are not of each LR pixel.
        """
        if self._per_pixel is not None:
            return self._draw_per_pixel(batch, self._per_pixel)
        count = None if self.queries is None else int(self.queries)
        needed = f"stage.queries={'null' if count is None else count}"
        H, W = common_size(batch, needed, "stage.queries=per_pixel:2 or ")
        if count is None or count >= H * W:
            return None
        draws = self.generator(self.device)
        return torch.randint(H * W, (count,), generator=draws, device=self.device)

    def _draw_per_pixel(self, batch: TrainBatch, count: int) -> CellQueries:
        B, _, h, w = batch.lr_B3hw.shape
        side_B: Tensor | None = getattr(batch, "side_B", None)
        # Filled on the device: a step that copies numbers to a GPU cannot be captured.
        full = [torch.full((B,), side, device=self.device) for side in batch.hr_B3HW.shape[-2:]]
        size_B2 = torch.stack(full if side_B is None else [side_B, side_B], dim=1)
        share = (self.global_rank, self.trainer.world_size if self._trainer else 1)
        return CellQueries.draw((h, w), size_B2, count, self.generator(self.device), share)

    def outputs(
        self, lr_B3hw: Tensor, size: tuple[int, int], queries: Tensor | CellQueries | None
    ) -> PCSROutput:
        """The network's outputs in training: where the step is captured, by its padded twin."""
        run: Callable[..., PCSROutput] = self.network if self._twin is None else self._twin
        return run(lr_B3hw, size, queries)

    def prepare_capture(self) -> None:
        if has_bias_shifts(self.network):
            raise ConfigError("denoise=true takes other biases in each step")
        self._twin = PaddedTwin(self.network)

    def end_capture(self) -> None:
        self._twin = None

    def strength(self) -> float:
        """How much this step's crops are to be cleaned, from 0 to 1; alike on all devices."""
        full, strength = np.random.default_rng([self.seed, self.global_step]).random(2)
        return 1.0 if full < self.full_strength else float(strength)

    def query(
        self, batch: TrainBatch, queries: Tensor | CellQueries | None
    ) -> tuple[PCSROutput, Tensor]:
        """The network's outputs at the queries, and what they are to be, ``(B, 3, Q)``.

        That is the ground truth; for a network with bias shifts, the ground truth with a share
        ``1 - strength`` of what noise and compression have added to the LR crop.

        Raises:
            ConfigError: nothing says what they have added.
        """
        size = (batch.hr_B3HW.shape[-2], batch.hr_B3HW.shape[-1])
        hr_B3Q = at_queries(batch.hr_B3HW, queries)
        if not has_bias_shifts(self.network):
            return self.outputs(batch.lr_B3hw, size, queries), hr_B3Q
        clean_B3hw: Tensor | None = getattr(batch, "clean_lr_B3hw", None)
        if clean_B3hw is None:
            raise ConfigError(
                "denoise=true: the data's batches do not say what noise there is to take away; "
                "set data/degradation=photo data.mix_scales=false, or give your own degradation a "
                "method pair"
            )
        strength = self.strength()
        arguments = (batch.lr_B3hw, size, queries)
        out = functional_call(self.network, biases_at(self.network, strength), arguments)
        added_B3Q = bilinear_at(batch.lr_B3hw - clean_B3hw, size, queries)
        return out, hr_B3Q + (1 - strength) * added_B3Q

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Random numbers of this step, which a resumed run draws as the uninterrupted one would."""
        # 32 bits: of a longer seed the CPU's generator drops the rest.
        seed = np.random.SeedSequence([self.seed, self.global_step]).generate_state(1)[0]
        return torch.Generator(device).manual_seed(int(seed))


def at_queries(hr_B3HW: Tensor, queries: Tensor | CellQueries | None) -> Tensor:
    """The ground truth at the query pixels, ``(B, 3, Q)``, in [0, 1]; all pixels for ``None``.

    Args:
        hr_B3HW: ``float32`` in [0, 1], or ``uint8``.
        queries: as :meth:`PCSR.forward` takes them.
    """
    if isinstance(queries, CellQueries):
        return as_float(queries.at(hr_B3HW))
    hr_B3Q = hr_B3HW.flatten(2)
    return as_float(hr_B3Q if queries is None else hr_B3Q.index_select(2, queries))

"""Table 5: the multiply-adds that fvcore counts on the running engine, and those it predicts."""

from __future__ import annotations

from typing import Any

from _inputs import SCALE, Models, Photograph, load_pcsr
from _ways import MODES
from torch import Tensor, nn

import pcsr_lightning
from pcsr_lightning.networks import PCSR, count_macs

LR_SIZE = (96, 128)
TILE_ROWS = 24
"""Low enough for several strips."""


class _Engine(nn.Module):
    """``pcsr_lightning.upscale`` as a module, so that fvcore can trace it."""

    def __init__(self, model: PCSR, options: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.options = model, options

    def forward(self, lr_13hw: Tensor) -> Tensor:
        result = pcsr_lightning.upscale(self.model, lr_13hw, SCALE, **self.options)
        return result.image


def table_5(models: Models, photograph: Photograph) -> str:
    """A row for each way of choosing classes."""
    model = load_pcsr(models.pcsr)
    lr_13hw, _ = photograph.pair(LR_SIZE)
    modes = {**MODES, "k = 1": {"k": 1.0, "cost": "proportional"}, "all heavy": {"fixed_class": 0}}
    lines = [
        f"LR {LR_SIZE[0]} x {LR_SIZE[1]}, strips of {TILE_ROWS} rows.",
        "",
        "| classes by | heavy share | predicted, GMACs | counted, GMACs | counted / predicted |",
        "|---|---|---|---|---|",
    ]
    for name, mode in modes.items():
        options = {**mode, "tile_rows": TILE_ROWS}
        result = pcsr_lightning.upscale(model, lr_13hw, SCALE, **options)
        counted = count_macs(_Engine(model, options), lr_13hw) / 1e9
        predicted = result.flops.gmacs
        lines.append(
            f"| {name} | {100 * result.shares[0]:.1f}% | {predicted:.4f} | {counted:.4f} "
            f"| {counted / predicted:.4f} |"
        )
    return "\n".join(lines)

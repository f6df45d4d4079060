"""The callback that freezes what earlier stages have trained, and says so."""

from __future__ import annotations

import logging

import lightning as L
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console
from rich.table import Table
from torch import nn

log = logging.getLogger(__name__)


class FreezeEarlierStages(L.Callback):
    """Freezes every part of the stage's network that the stage does not train (Sec. 3.3).

    Frozen means no gradient, no optimizer state and no drifting statistics: parameters stop
    requiring gradients before the optimizer is made, and the modules stay in evaluation mode, so
    batch norm neither uses nor updates the statistics of a batch.

    The stage names the parts in ``trained_parts()`` and ``frozen_parts()``.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        trained, frozen = _parts(pl_module)
        for module in frozen.values():
            module.requires_grad_(False)
        for module in trained.values():
            module.requires_grad_(True).train()
        set_eval(frozen)
        if trainer.is_global_zero:
            rank_zero_info(table(trained, frozen))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        set_eval(_parts(pl_module)[1])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        # Anything that called .train() on the whole since, validation included, is undone here.
        set_eval(_parts(pl_module)[1])


def set_eval(frozen: dict[str, nn.Module]) -> None:
    """Evaluation mode for the frozen parts."""
    for module in frozen.values():
        if module.training:
            module.eval()


def _parts(stage: L.LightningModule) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    trained, frozen = stage.trained_parts(), stage.frozen_parts()  # type: ignore[operator]
    return trained, frozen


def table(trained: dict[str, nn.Module], frozen: dict[str, nn.Module]) -> str:
    """The log's table of parts, their parameters, and whether they are trained or frozen."""
    rows = Table("part", "state", title="what this stage trains")
    rows.add_column("parameters", justify="right")
    for state, parts in (("frozen", frozen), ("trained", trained)):
        for name, module in parts.items():
            rows.add_row(name, state, f"{sum(p.numel() for p in module.parameters()):,}")
    console = Console(width=72, color_system=None)
    with console.capture() as text:
        console.print(rows)
    return "\n" + text.get().rstrip()

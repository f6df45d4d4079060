"""Training: one LightningModule a stage, losses, optimizers, callbacks, and all stages in order."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcsr_lightning.training.callbacks.clock import Clock
    from pcsr_lightning.training.callbacks.freezing import FreezeEarlierStages
    from pcsr_lightning.training.initialization import (
        init_from_previous_stage,
        stage_network,
        warm_start,
    )
    from pcsr_lightning.training.losses import SquaredError, WeightedSum, average_loss
    from pcsr_lightning.training.modules import (
        ARMStage,
        ClassSRBranches,
        ClassSRStage,
        FirstStage,
        LaterStage,
        OriginalStage,
        PCSRStage,
        SRStage,
    )
    from pcsr_lightning.training.optim import Muon, cosine, trapezoid
    from pcsr_lightning.training.run_all import train_all
    from pcsr_lightning.training.train_stage import train

__all__ = [
    "ARMStage",
    "ClassSRBranches",
    "ClassSRStage",
    "Clock",
    "FirstStage",
    "FreezeEarlierStages",
    "LaterStage",
    "Muon",
    "OriginalStage",
    "PCSRStage",
    "SRStage",
    "SquaredError",
    "WeightedSum",
    "average_loss",
    "cosine",
    "init_from_previous_stage",
    "stage_network",
    "train",
    "train_all",
    "trapezoid",
    "warm_start",
]

_MODULES = {
    "callbacks.clock": ("Clock",),
    "callbacks.freezing": ("FreezeEarlierStages",),
    "initialization": ("init_from_previous_stage", "stage_network", "warm_start"),
    "losses": ("SquaredError", "WeightedSum", "average_loss"),
    "modules": (
        "ARMStage",
        "ClassSRBranches",
        "ClassSRStage",
        "FirstStage",
        "LaterStage",
        "OriginalStage",
        "PCSRStage",
        "SRStage",
    ),
    "optim": ("Muon", "cosine", "trapezoid"),
    "run_all": ("train_all",),
    "train_stage": ("train",),
}


def __getattr__(name: str) -> Any:
    """Fetches a public name when it is first asked for: Lightning takes a second to import."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Temporary evaluation mode, and whether a network is being traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every module's own mode is restored.

    ``model.train(was_training)`` would not do: it would set frozen parts to training mode too.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def is_tracing() -> bool:
    """Whether torch.jit is tracing, as fvcore does to count operations."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]

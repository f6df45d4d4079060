"""Optimizers and learning rate schedules."""

from pcsr_lightning.training.optim.muon import Muon
from pcsr_lightning.training.optim.schedule import cosine, trapezoid

__all__ = ["Muon", "cosine", "trapezoid"]

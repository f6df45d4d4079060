"""Optimizers and learning rate schedules."""

from pcsr_lightning.training.optim.factories import make_optimizer, make_schedule, with_options
from pcsr_lightning.training.optim.muon import Muon
from pcsr_lightning.training.optim.schedule import cosine, trapezoid

__all__ = ["Muon", "cosine", "make_optimizer", "make_schedule", "trapezoid", "with_options"]

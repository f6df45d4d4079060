"""``stage=all``: all stages of a model in one job, and one table for a sweep over ``M``."""

from pcsr_lightning.training.in_order import ALL, train_all
from pcsr_lightning.training.m_sweep import failure_kept

__all__ = ["ALL", "failure_kept", "train_all"]

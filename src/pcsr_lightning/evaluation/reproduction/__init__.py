"""The paper's tables measured again, beside what the paper prints."""

from pcsr_lightning.evaluation.reproduction.run import reproduce
from pcsr_lightning.evaluation.reproduction.settings import ReproductionConfig

__all__ = ["ReproductionConfig", "reproduce"]

"""What classes cost, which pixel goes to which, and refinement. Tensors in, tensors out."""

from pcsr_lightning.routing.assign import (
    assign_adaptive,
    assign_by_difficulty,
    assign_by_k,
    difficulty,
    heavy_classes,
    kmeans_thresholds,
)
from pcsr_lightning.routing.budget import assign_by_budget, assign_by_keys, upgrade_keys
from pcsr_lightning.routing.cost import CostRule, class_costs
from pcsr_lightning.routing.refine import refine, refines_at
from pcsr_lightning.routing.surveys import DifficultySurvey, KeySurvey, Rule, Survey

__all__ = [
    "CostRule",
    "DifficultySurvey",
    "KeySurvey",
    "Rule",
    "Survey",
    "assign_adaptive",
    "assign_by_budget",
    "assign_by_difficulty",
    "assign_by_k",
    "assign_by_keys",
    "class_costs",
    "difficulty",
    "heavy_classes",
    "kmeans_thresholds",
    "refine",
    "refines_at",
    "upgrade_keys",
]

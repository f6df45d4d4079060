"""From pictures to a released model: recipes, their stages in order, and the model card."""

from pcsr_lightning.release.make_release import Sources, release, release_weights
from pcsr_lightning.release.recipe import Recipe, list_recipes
from pcsr_lightning.release.robustness import Robustness, robustness
from pcsr_lightning.release.run_stages import StageRun, run_stages

__all__ = [
    "Recipe",
    "Robustness",
    "Sources",
    "StageRun",
    "list_recipes",
    "release",
    "release_weights",
    "robustness",
    "run_stages",
]

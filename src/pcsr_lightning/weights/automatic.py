"""Which of two released models a picture takes: the usual one, or its counterpart for photographs.

A model for photographs names those that it stands in for beside its architecture, as ``photo_of``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pcsr_lightning.images import PictureCondition
from pcsr_lightning.weights.descriptions import describe_models
from pcsr_lightning.weights.registry import DEFAULT_MODEL


class ModelChoice(NamedTuple):
    """A released model, and why a picture takes it; ``None`` where there was nothing to choose."""

    name: str
    reason: str | None

    @property
    def said(self) -> str | None:
        """Both, for whoever did not choose it; ``None`` where there was nothing to choose."""
        return None if self.reason is None else f"{self.name}: {self.reason}"


def photo_counterpart(name: str) -> str | None:
    """The released model that does for photographs what model ``name`` does for clean pictures."""
    return next((model.name for model in describe_models() if name in model.photo_of), None)


def choose_model(
    condition: PictureCondition, scale: Sequence[float], usual: str = DEFAULT_MODEL
) -> ModelChoice:
    """The model that a picture takes: the usual one, where it has no counterpart.

    Args:
        condition: of the picture.
        scale: (vertical, horizontal); one that only the counterpart was trained for decides.
        usual: a released model.
    """
    models = {model.name: model for model in describe_models()}
    photo = next((model for model in models.values() if usual in model.photo_of), None)
    if photo is None or usual not in models:
        return ModelChoice(usual, None)
    lowest = min(scale)
    if photo.scales[0] <= lowest < models[usual].scales[0]:
        return ModelChoice(photo.name, f"scale {lowest:.3g} is below those of {usual}")
    name = usual if condition.damage is None else photo.name
    return ModelChoice(name, str(condition))

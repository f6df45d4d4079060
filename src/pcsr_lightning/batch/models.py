"""The models of a run: one for every picture, or one of two by what a picture is like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pcsr_lightning.images import Picture, PictureCondition, picture_condition
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.weights import DEFAULT_MODEL, ModelChoice, choose_model, photo_counterpart


@dataclass(frozen=True)
class RunModels:
    """The models of a run.

    Attributes:
        networks: on their device, by name: the one that was asked for, or the usual one and its
            counterpart for photographs.
        reason: why every picture takes the only one, where it was not asked for by name.
    """

    networks: Mapping[str, PCSR | Original]
    reason: str | None = None

    @property
    def first(self) -> tuple[str, PCSR | Original]:
        """The only one, or the usual one."""
        return next(iter(self.networks.items()))

    def choose(self, picture: Picture, size: tuple[int, int]) -> ModelChoice:
        """The model that a picture takes for a result of ``(H, W)``."""
        name, _ = self.first
        if len(self.networks) == 1:
            return ModelChoice(name, self.reason)
        h, w = picture.rgb.shape[1:]
        return choose_model(picture_condition(picture), (size[0] / h, size[1] / w), name)


def model_names(
    model: str | None, denoise: float | None, scale: float | None
) -> tuple[list[str], str | None]:
    """The names of a run's models, and why every picture takes the only one, as above.

    Args:
        model: that was asked for.
        denoise: how much is to be cleaned, if that was said.
        scale: of every picture, if that was said.
    """
    photo = photo_counterpart(DEFAULT_MODEL)
    if model is not None or photo is None:
        return [model or DEFAULT_MODEL], None
    if denoise is not None:
        return [photo], f"taken for --denoise {denoise:g}"
    if scale is not None:
        name, reason = choose_model(PictureCondition(), (scale, scale))
        if name == photo:
            return [photo], reason
    return [DEFAULT_MODEL, photo], None

"""What each released model is best for, at which scales, and how fast."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pcsr_lightning.weights.registry import DEFAULT_MODEL, find_model, list_models


@dataclass(frozen=True)
class ModelDescription:
    """A released model, for who has to choose one.

    Attributes:
        name: that :func:`~pcsr_lightning.load` takes.
        scales: that it was trained for, the lowest and the highest.
        relative_time: of the default model's time for the same picture; ``None`` if not measured.
        best_for: in a few words.
        has_classes: it routes pixels; an original network does not.
        photo_of: the models that it stands in for where a photograph is noisy or compressed.
    """

    name: str
    scales: tuple[float, float]
    relative_time: float | None
    best_for: str
    has_classes: bool = True
    photo_of: tuple[str, ...] = ()

    @property
    def scales_text(self) -> str:
        """``x4``, or ``x2 to x4``."""
        low, high = self.scales
        return f"x{low:g}" if low == high else f"x{low:g} to x{high:g}"


def describe_models() -> list[ModelDescription]:
    """All released models, the default first, then from the fastest on."""
    found = []
    for name in list_models():
        about = json.loads(find_model(name).with_suffix(".json").read_text(encoding="utf-8"))
        scales = about.get("scales") or [about["network"].get("scale", 4)]
        found.append(
            ModelDescription(
                name,
                (float(min(scales)), float(max(scales))),
                about.get("relative_time"),
                about.get("best_for", ""),
                about["network"]["kind"] == "pcsr",
                tuple(about.get("photo_of", ())),
            )
        )
    slowest = float("inf")
    return sorted(
        found, key=lambda m: (m.name != DEFAULT_MODEL, m.relative_time or slowest, m.name)
    )

"""The scales that models were trained for, and a warning where another one is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pcsr_lightning.networks import AnyNetwork
from pcsr_lightning.weights.files import read_scales
from pcsr_lightning.weights.registry import DEFAULT_MODEL, find_model, list_models

Range = tuple[float, float]


def scale_warning(
    model: AnyNetwork, name: str, scale: Sequence[float], tolerance: float = 0.0
) -> str | None:
    """One line on a scale that a model was not trained for; ``None`` if it was, or is not known.

    It names a released model that was trained for the scale, or the one that comes closest.

    Args:
        model: as it was loaded.
        name: that the user knows it by.
        scale: (vertical, horizontal).
        tolerance: by which a scale may be outside, where it was derived from whole pixels.
    """
    trained = model.trained_scales
    if trained is None or _distance(trained, scale) <= tolerance:
        return None
    asked = " x ".join(f"{s:g}" for s in dict.fromkeys(round(s, 2) for s in scale))
    said = f"{name} was trained for {_text(trained)}, not x{asked}: bicubic may be better"
    released = _released_scales()
    if not released:
        return said
    best = min(released, key=lambda other: _distance(released[other], scale))
    if _distance(released[best], scale) <= tolerance:
        return f"{said}; {best} was trained for {_text(released[best])}"
    nearest = "" if best == name else f", the nearest is {best} ({_text(released[best])})"
    return f"{said}; no released model was trained for it{nearest}"


def _released_scales() -> dict[str, Range]:
    """Of every released PCSR model of clean pictures, the default first."""
    found = {}
    for name in sorted(list_models(), key=lambda name: (name != DEFAULT_MODEL, name)):
        config = json.loads(find_model(name).with_suffix(".json").read_text(encoding="utf-8"))
        scales = read_scales(config)
        routes = config["network"]["kind"] == "pcsr"
        if scales is not None and routes and "photo_of" not in config:
            found[name] = scales
    return found


def _distance(trained: Range, scale: Sequence[float]) -> float:
    """How far a scale, of height or of width, is outside the range; 0 within."""
    return max(0.0, trained[0] - min(scale), max(scale) - trained[1])


def _text(trained: Range) -> str:
    low, high = trained
    return f"x{low:g}" if low == high else f"x{low:g} to x{high:g}"

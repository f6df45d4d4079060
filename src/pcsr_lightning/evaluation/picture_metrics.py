"""Metrics of a user's own: by ``_target_``, a number for every picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError, single_line
from pcsr_lightning.images.comparison import eight_bit, shave
from pcsr_lightning.images.picture import floats
from pcsr_lightning.settings.instantiation import called, configured

PictureMetric = Callable[[Tensor, Tensor], Any]
"""Gets an upscaled picture and the ground truth, ``(1, 3, H, W)`` in [0, 1], rounded to 8 bit with
a border shaved off, and gives one number. Any metric of torchmetrics with ``data_range=1.0``."""


def build_metrics(settings: Mapping[str, Any] | None) -> dict[str, PictureMetric]:
    """The metrics that ``metrics`` of a config names.

    Args:
        settings: the node of each, by name: ``_target_`` and arguments; with ``_partial_: true`` a
            function itself. ``None`` switches one off.

    Raises:
        ConfigError: one of them cannot be made.
    """
    built: dict[str, PictureMetric] = {}
    for name, node in (settings or {}).items():
        if node is None:
            continue
        key = f"metrics.{name}"
        if not isinstance(node, Mapping):
            raise ConfigError(f"{key}={node}: write {key}._target_=my_package.MyMetric")
        made = configured(node, key)
        built[str(name)] = made if node.get("_partial_") else called(made, key)
        if not callable(built[str(name)]):
            raise ConfigError(f"{key}: {type(made).__name__} cannot be called with two pictures")
    return built


def measure_pictures(
    metrics: Mapping[str, PictureMetric], sr_13HW: Tensor, hr_13HW: Tensor, border: int
) -> dict[str, float]:
    """What each metric gives for one picture.

    Args:
        metrics: see :func:`build_metrics`; those with weights are moved to the pictures' device.
        sr_13HW: the upscaled picture.
        hr_13HW: the ground truth in [0, 1].
        border: pixels that are left out on every side.

    Raises:
        ConfigError: a metric fails, or gives something else than one number.
    """
    if not metrics:  # the floating-point pictures of 8K take 1.2 GiB
        return {}
    # Contiguous: some metrics take nothing else.
    pictures = (floats(x).float() for x in (sr_13HW, hr_13HW))
    sr, hr = (shave(eight_bit(x) / 255, border).contiguous() for x in pictures)
    return {name: _measure(name, metric, sr, hr) for name, metric in metrics.items()}


def _measure(name: str, metric: PictureMetric, sr: Tensor, hr: Tensor) -> float:
    if isinstance(metric, nn.Module):
        metric.to(sr.device)
    try:
        with torch.inference_mode():
            # Each picture by itself: the means are taken over pictures, by whoever asks.
            value = float(metric(sr, hr))
    except Exception as error:  # it may be anybody's
        raise ConfigError(
            f"metrics.{name} fails on pictures of {hr.shape[-2]} x {hr.shape[-1]} pixels: "
            f"{type(error).__name__}: {single_line(str(error))[:200]}"
        ) from error
    reset = getattr(metric, "reset", None)
    if reset is not None:
        reset()
    return value

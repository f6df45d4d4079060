"""A model on a folder of pictures: quality, cost and time of each, and their means."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pcsr_lightning.distributed import ALONE, ProcessGroup
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.measurement import Lpips, Measurement, Quality, mean
from pcsr_lightning.evaluation.metrics import build_lpips
from pcsr_lightning.evaluation.pairs import (
    Pair,
    Protocol,
    check_integer_scale,
    scale_pair,
    shaved_border,
)
from pcsr_lightning.evaluation.patches import Layout, upscale_patches
from pcsr_lightning.evaluation.picture_metrics import PictureMetric
from pcsr_lightning.evaluation.reader import Reader, Skipped
from pcsr_lightning.images.comparison import bicubic_bytes
from pcsr_lightning.inference import RoutingConfig, UpscaleResult, check_patch_routing
from pcsr_lightning.networks import AnyNetwork, Original, PatchRouted

WARM_UP = 32
"""Side in LR pixels of what is upscaled once, untimed, before the first picture."""


@dataclass(frozen=True)
class Benchmark:
    """What :func:`benchmark` measured: one picture at least, and which pictures were left out."""

    images: tuple[Measurement, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def mean(self) -> Measurement:
        """The mean over the pictures, see :func:`~pcsr_lightning.evaluation.measurement.mean`."""
        return mean(self.images)


OnPicture = Callable[[Measurement, UpscaleResult], None]


def benchmark(
    model: AnyNetwork,
    folder: str | Path,
    scale: float | Sequence[float] = 4,
    routing: RoutingConfig | None = None,
    protocol: Protocol | str = Protocol.FULL_IMAGE,
    on_picture: OnPicture | None = None,
    progress: bool = False,
    *,
    patch_size: int | None = None,
    lpips: bool = False,
    metrics: Mapping[str, PictureMetric] | None = None,
    processes: ProcessGroup = ALONE,
) -> Benchmark:
    """Degrades every picture of a folder, upscales it again and compares.

    A picture that cannot be read, or is too small, is left out with a warning that names it.

    Args:
        model: on the device it is to be measured on.
        folder: of HR pictures; sub-folders too.
        scale: one number, or (vertical, horizontal). Original models know one.
        routing: how pixels find their class; ``k = 0`` if not given. Original models have none.
        protocol: which pixels count, see :func:`make_pair`; with ``patches`` and ``overlapped``
            pictures are upscaled in patches, see :func:`upscale_patches`.
        on_picture: gets each score with the picture it was given for, in the process that did it.
        progress: shows a progress bar on stderr where that is a terminal.
        patch_size: for protocol ``patches``: 16, 32 (if not given), 64 or 128 LR pixels.
        lpips: measures LPIPS too, see :func:`build_lpips`.
        metrics: your own, by name: each gets an upscaled picture and the ground truth,
            ``(1, 3, H, W)`` in [0, 1], and gives one number.
        processes: that share the pictures; all of them get the whole result.

    Raises:
        ConfigError: scale, routing or protocol do not fit the model or each other; or LPIPS
            cannot be had.
        PictureError: no such folder, or no picture in it.
        DataError: none of its pictures could be used.
    """
    routing, protocol, scales = routing or RoutingConfig(), Protocol(protocol), scale_pair(scale)
    check_fits(model, scales, routing, protocol)
    layout = Layout.of(protocol, patch_size)
    perceptual = processes.run_collectively(
        lambda: build_lpips(model.mean.device) if lpips else None
    )
    reader = Reader(Path(folder), scales, protocol, processes)
    warm = False

    setup = describe_setup(model, folder, scales, routing, protocol, layout)

    def measure(name: str, pair: Pair) -> Measurement:
        nonlocal warm
        if not warm:
            warm_up = pair.lr_13hw[..., :WARM_UP, :WARM_UP].to(model.mean.device)
            upscale_patches(model, warm_up, scales, routing)
            warm = True
        measured, result = measure_pair(model, pair, setup, layout, perceptual, metrics)
        measured = replace(measured, name=name)
        if on_picture is not None:
            on_picture(measured, result)
        return measured

    images = reader.each(measure, progress)
    return Benchmark(tuple(images), tuple(reader.skipped))


def describe_setup(
    model: AnyNetwork,
    folder: str | Path,
    scale: tuple[float, float],
    routing: RoutingConfig,
    protocol: Protocol = Protocol.FULL_IMAGE,
    layout: Layout | None = None,
) -> Measurement:
    """What is to be measured, as a :class:`Measurement` that has no numbers yet."""
    return Measurement(
        backbone=model.backbone.name,
        classes=model.num_classes,
        parameters=sum(p.numel() for p in model.parameters()),
        routing=None if isinstance(model, Original) else routing,
        scale=scale,
        protocol=protocol.value,
        patch_size=None if layout is None else layout.side,
        data_root=str(folder),
    )


def measure_pair(
    model: AnyNetwork,
    pair: Pair,
    setup: Measurement,
    layout: Layout | None = None,
    lpips: Lpips | None = None,
    metrics: Mapping[str, PictureMetric] | None = None,
) -> tuple[Measurement, UpscaleResult]:
    """Upscales one degraded picture, timed, and compares it with the ground truth.

    Args:
        model: on the device it is to be measured on.
        pair: the picture.
        setup: see :func:`describe_setup`; gives scale and routing.
        layout: where patches lie; the full image without.
        lpips: see :func:`build_lpips`; not measured without.
        metrics: as for :func:`benchmark`.

    Returns:
        The setup with the numbers of this picture, and the picture: as bytes, if it was not
        upscaled in patches.
    """
    device = model.mean.device
    lr_13hw, hr_13HW = pair.lr_13hw.to(device), pair.truth_13HW.to(device)
    routing = setup.routing or RoutingConfig()  # an original model needs none
    start = _now(device)
    result = upscale_patches(model, lr_13hw, setup.scale, routing, layout, bits=8)
    seconds = _now(device) - start
    size = (hr_13HW.shape[-2], hr_13HW.shape[-1])
    border = shaved_border(setup.scale)
    measured = setup.of_result(
        result,
        **vars(Quality.of(result.image, hr_13HW, border, lpips, metrics)),
        bicubic=Quality.of(bicubic_bytes(lr_13hw, size), hr_13HW, border, lpips, metrics),
        seconds=seconds,
        size=size,
    )
    return measured, result


def check_fits(
    model: AnyNetwork,
    scale: tuple[float, float],
    routing: RoutingConfig,
    protocol: Protocol = Protocol.FULL_IMAGE,
) -> None:
    """Refuses what the model cannot do, before any picture is read.

    Raises:
        ConfigError: an original model at another scale than its own, a class there is not, or a
            fractional scale with a protocol that needs an integer.
    """
    check_integer_scale(protocol, scale)
    if isinstance(model, PatchRouted):
        if protocol not in (Protocol.PATCHES, Protocol.OVERLAPPED):
            raise ConfigError(
                f"protocol={protocol}: {type(model).__name__} routes patches; use "
                "protocol=overlapped"
            )
        check_patch_routing(model, routing)
    if model.scale is not None and scale != (model.scale, model.scale):
        kind = "an original" if isinstance(model, Original) else f"a {type(model).__name__} of"
        raise ConfigError(
            f"scale={_setting(scale)}: this is {kind} {model.backbone.name}, made for scale "
            f"{model.scale} alone; use scale={model.scale}, or a PCSR model"
        )
    classes = model.num_classes
    fixed = routing.fixed_class
    if fixed is not None and fixed >= classes:
        known = f"classes 0 (the heaviest) to {classes - 1}" if classes > 1 else "class 0 only"
        raise ConfigError(f"routing.fixed_class={fixed}: this model has {known}")


def _now(device: torch.device) -> float:
    """Seconds, once everything sent to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _setting(scale: tuple[float, float]) -> str:
    """As it is written on the command line."""
    return f"{scale[0]:g}" if scale[0] == scale[1] else f"[{scale[0]:g},{scale[1]:g}]"

"""The library's main call: a model and a picture in, the enlarged picture out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference.analysis import Analysis, UpscaleResult
from pcsr_lightning.inference.checks import (
    check_finite,
    check_picture,
    check_size,
    output_size,
)
from pcsr_lightning.inference.flops import original_flops
from pcsr_lightning.inference.routing_choice import Routing
from pcsr_lightning.networks import PCSR, Original, evaluating
from pcsr_lightning.routing import CostRule


def upscale(
    model: PCSR | Original,
    image: Tensor,
    scale: float | Sequence[float] = 4,
    k: float = 0.0,
    adaptive: bool = False,
    *,
    size: tuple[int, int] | None = None,
    only: int | None = None,
    cost: CostRule | str = CostRule.SOFTMAX,
    refine: bool = True,
) -> UpscaleResult:
    """Enlarges pictures, paying for each pixel according to its difficulty.

    Args:
        model: from ``pcsr_lightning.load``; on the picture's device.
        image: ``(B, 3, h, w)``, RGB in [0, 1], floating point.
        scale: 1 to 16, whole or not; two numbers for height and width. An original model has one
            scale of its own.
        k: lower sends more pixels to heavier upsamplers; 0 takes the most probable class (Eq. 10).
        adaptive: decide by the picture's own statistics instead of ``k`` (ADM).
        size: ``(H, W)`` of the result, instead of ``scale``.
        only: send every pixel to this class, 0 being the heaviest, instead of ``k``.
        cost: ``softmax`` (Eq. 9), or ``proportional`` as the published code has it.
        refine: smooth light pixels beside heavy ones (Sec. 3.4).

    Returns:
        The picture, the class of each pixel, and the cost.

    Raises:
        ConfigError: an argument out of range, or two that contradict each other.
        PCSRError: the network gave NaN or infinite values.

    Example:
        >>> model = pcsr_lightning.load("fsrcnn-pcsr-x4")
        >>> result = pcsr_lightning.upscale(model, torch.rand(1, 3, 60, 80), scale=4)
        >>> result.image.shape
        torch.Size([1, 3, 240, 320])
    """
    routing = _routing(k, adaptive, only, cost, refine)
    if isinstance(model, Original):
        return _upscale_original(model, image, scale, size, routing)
    if not isinstance(model, PCSR):
        raise ConfigError(
            f"the model must be a PCSR or an Original network, not {type(model).__name__}; "
            "pcsr_lightning.load gives one"
        )
    return Analysis.of(model, image, scale, size).run(routing)


def _routing(
    k: float, adaptive: bool, only: int | None, cost: CostRule | str, refine: bool
) -> Routing:
    chosen = [name for name, is_set in _choices(k, adaptive, only) if is_set]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} exclude each other: give one of them")
    mode = "adaptive" if adaptive else "k" if only is None else str(only)
    return Routing(mode, k, cost, refine)


def _choices(k: float, adaptive: bool, only: int | None) -> list[tuple[str, bool]]:
    return [(f"k={k}", k != 0), ("adaptive", adaptive), (f"only={only}", only is not None)]


def _upscale_original(
    model: Original,
    image_B3hw: Tensor,
    scale: float | Sequence[float],
    size: tuple[int, int] | None,
    routing: Routing,
) -> UpscaleResult:
    check_picture(image_B3hw, model.mean.device)
    lr_size = (image_B3hw.shape[-2], image_B3hw.shape[-1])
    wanted = output_size(lr_size, scale) if size is None else check_size(lr_size, size)
    made = (lr_size[0] * model.scale, lr_size[1] * model.scale)
    if wanted != made:
        raise ConfigError(
            f"this is an original {model.backbone.name} model, made for scale {model.scale} only: "
            f"it cannot make {wanted[0]} x {wanted[1]} pixels of {lr_size[0]} x {lr_size[1]} "
            "(height x width). Take a PCSR model for other scales"
        )
    if routing.single:
        raise ConfigError(f"there is no class {routing.single}: an original model has class 0 only")
    with torch.inference_mode(), evaluating(model):
        x = image_B3hw.to(model.mean.dtype).contiguous(memory_format=torch.channels_last)
        sr_B3HW = model(x).float()
        check_finite(sr_B3HW, "the enlarged picture")
    flops = original_flops(model, image_B3hw[:, 0].numel())
    image = sr_B3HW.clamp(0, 1).contiguous()
    assignment = torch.zeros(len(image), *made, dtype=torch.uint8, device=image.device)
    return UpscaleResult(image, assignment, flops, (1.0,))

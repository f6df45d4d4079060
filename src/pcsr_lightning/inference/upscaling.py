"""The library's main call: a model and a picture in, the upscaled picture out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference.checks import check_picture, check_size, output_size
from pcsr_lightning.inference.engine import Engine, Progress, part_of
from pcsr_lightning.inference.execution import Execution, Precision
from pcsr_lightning.inference.features import STRIP_PIXELS, feature_rows, strip_rows, uses_numba
from pcsr_lightning.inference.flops import Flops, model_macs
from pcsr_lightning.inference.fused_queries import query_kernels
from pcsr_lightning.inference.input_rows import InputRows
from pcsr_lightning.inference.original_rows import run_original
from pcsr_lightning.inference.result import Output, UpscaleResult, collect
from pcsr_lightning.inference.time_budget import TimedPictures, feature_bytes
from pcsr_lightning.networks import PCSR, Original, unwrapped
from pcsr_lightning.routing import CostRule, RoutingConfig, make_policy


def upscale(
    model: PCSR | Original,
    image: Tensor,
    scale: float | Sequence[float] = 4,
    k: float = 0.0,
    adaptive: bool = False,
    *,
    size: tuple[int, int] | None = None,
    fixed_class: int | None = None,
    budget: float | None = None,
    time_budget: float | None = None,
    cost: CostRule | str = CostRule.SOFTMAX,
    refine: bool | None = None,
    routing: RoutingConfig | None = None,
    precision: Precision | str = Precision.FP32,
    max_memory: int | None = None,
    tile_rows: int | None = None,
    bits: int | None = None,
    progress: Progress | None = None,
    only: int | None = None,
) -> UpscaleResult:
    """Upscales pictures, paying for each pixel according to its difficulty.

    Args:
        model: from ``pcsr_lightning.load``; on the picture's device.
        image: ``(B, 3, h, w)``, RGB in [0, 1], floating point.
        scale: 1 to 16, fractions too; two numbers for height and width. An original model has one
            scale of its own.
        k: lower sends more pixels to heavier upsamplers; 0 takes the most probable class (Eq. 10).
        adaptive: decide by the picture's own statistics instead of ``k`` (ADM).
        size: ``(H, W)`` of the result, instead of ``scale``.
        fixed_class: send every pixel to this class, 0 being the heaviest, instead of ``k``.
        budget: what each picture may cost, as a share of sending every pixel to the heaviest
            upsampler, above 0 and up to 1, instead of ``k``. The hardest pixels are paid for first;
            where it is less than all pixels in the lightest class cost, they go there.
        time_budget: what the call may take, in seconds, instead of ``k``; as ``budget``, by what
            this machine takes. That is measured once for a model, device, precision and number of
            threads, before the time begins, and kept in the cache.
        cost: ``softmax`` (Eq. 9), or ``proportional`` as the published code has it.
        refine: smooth light pixels beside heavy ones (Sec. 3.4); ``None``: from scale 4 up.
        routing: all of these choices in one value, and those of rules that have no argument here,
            instead of ``k``, ``adaptive``, ``fixed_class``, ``budget``, ``time_budget``, ``cost``
            and ``refine``.
        precision: ``fp32``, whatever the process has set about TF32 or autocast; or, where the
            machine has such products, ``tf32`` or ``bf16``.
        max_memory: bytes that may be in work at a time, beside picture, result and model.
        tile_rows: LR rows in work at a time, instead of ``max_memory``.
        bits: 8 or 16 gives the picture as integers of so many bits, rounded as in a file, in
            a quarter or half of the memory.
        progress: called with the part of the work that is done, above 0 and rising to 1, after each
            strip of rows. What it raises ends the work and comes out here.
        only: deprecated, use ``fixed_class``.

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
    if only is not None:
        warnings.warn("only is deprecated: use fixed_class", DeprecationWarning, stacklevel=2)
        fixed_class = only
    chosen = RoutingConfig(
        cost=cost,
        refine=refine,
        k=k,
        adaptive=adaptive,
        fixed_class=fixed_class,
        budget=budget,
        seconds=time_budget,
    )
    if routing is None:
        routing = chosen
    elif chosen != RoutingConfig():
        raise ConfigError(
            f"routing and {chosen.description} exclude each other: put all choices into routing"
        )
    return upscale_by(
        model,
        image,
        routing,
        Execution(precision, max_memory, tile_rows),
        scale,
        size,
        bits,
        progress,
    )


def upscale_by(
    model: PCSR | Original,
    image_B3hw: Tensor,
    routing: RoutingConfig,
    execution: Execution | None = None,
    scale: float | Sequence[float] = 4,
    size: tuple[int, int] | None = None,
    bits: int | None = None,
    progress: Progress | None = None,
) -> UpscaleResult:
    """:func:`upscale` with its choices as values; see there."""
    execution, model = execution or Execution(), unwrapped(model)
    if not isinstance(model, PCSR | Original):
        raise ConfigError(
            f"the model must be a PCSR or an Original network, not {type(model).__name__}; "
            "pcsr_lightning.load gives one"
        )
    if bits not in (None, 8, 16):
        raise ConfigError(f"bits must be 8 or 16, or None for numbers in [0, 1], not {bits!r}")
    check_picture(image_B3hw, model.mean.device)
    # int(): while torch traces, sizes are tensors.
    lr_size = (int(image_B3hw.shape[-2]), int(image_B3hw.shape[-1]))
    wanted = output_size(lr_size, scale) if size is None else check_size(lr_size, size)
    if isinstance(model, Original):
        return _upscale_original(model, image_B3hw, wanted, routing, execution, bits, progress)
    timed = TimedPictures(model, lr_size, wanted, routing, execution, len(image_B3hw))
    policy, macs = make_policy(timed.routing, timed.macs), model_macs(model)
    # Large pictures fill the machine one by one, in strips.
    at_once = len(image_B3hw) if lr_size[0] * lr_size[1] <= STRIP_PIXELS else 1
    parts = torch.split(image_B3hw, at_once)
    results = []
    for i, part in enumerate(parts):
        of_all = part_of(progress, i / len(parts), (i + 1) / len(parts))
        rows = InputRows(part.float())
        engine = make_engine(model, rows, wanted, execution, policy.needs_whole_picture)
        results.append(collect(engine, macs, policy, bits, of_all))
    result = results[0] if len(results) == 1 else _joined(results)
    return replace(result, timing=timed.finish(result.shares))


def make_engine(
    model: PCSR,
    image: InputRows,
    size: tuple[int, int],
    execution: Execution,
    two_passes: bool = False,
) -> Engine:
    """Everything ready for one run over pictures.

    Args:
        model: on the pictures' device.
        image: ``(B, 3, h, w)`` in [0, 1], float32.
        size: ``(H, W)`` of the result.
        execution: precision and strips.
        two_passes: whether classes depend on the whole picture, so that features are worth keeping.
    """
    lr_size = (int(image.shape[-2]), int(image.shape[-1]))
    dtype = execution.dtype(model)
    with torch.inference_mode():
        x, fused = image.less(model.mean), execution.is_fused(image.device)
        planar = uses_numba(model.backbone, execution, len(x) * math.prod(lr_size), len(x))
        halo = model.backbone.halo
        features = feature_rows(model.backbone, halo, x, dtype, fused, planar)
        area = size[0] * size[1] / (lr_size[0] * lr_size[1])
        kept = feature_bytes(model, lr_size, execution, len(x)) if two_passes else 0
        rows = strip_rows(execution, features, x, area, kept=kept)
        grid = model.grid(lr_size, size)
        kernels = query_kernels(model, grid, dtype, fused, planar)
        return Engine(image, grid, features, kernels, rows, execution, kept > 0)


def _joined(results: Sequence[UpscaleResult]) -> UpscaleResult:
    """Pictures that were done one by one, as a batch."""
    images, classes = zip(*((r.image, r.assignment) for r in results), strict=True)
    gmacs = sum(r.flops.gmacs for r in results)
    published = sum(r.flops.gflops_published for r in results)
    shares = [fmean(share) for share in zip(*(r.shares for r in results), strict=True)]
    return UpscaleResult(
        torch.cat(images), torch.cat(classes), Flops(gmacs, published), tuple(shares)
    )


def _upscale_original(
    model: Original,
    image_B3hw: Tensor,
    size: tuple[int, int],
    routing: RoutingConfig,
    execution: Execution,
    bits: int | None,
    progress: Progress | None,
) -> UpscaleResult:
    made = check_original(model, (image_B3hw.shape[-2], image_B3hw.shape[-1]), size, routing)
    picture = Output(len(image_B3hw), made, image_B3hw.device, bits)
    with torch.inference_mode():
        rows = InputRows(image_B3hw.float())
        flops = run_original(model, rows, execution, picture.put, progress)
    assignment = torch.zeros(len(image_B3hw), *made, dtype=torch.uint8, device=image_B3hw.device)
    return UpscaleResult(picture.image_B3HW, assignment, flops, (1.0,))


def check_original(
    model: Original, lr_size: tuple[int, int], size: tuple[int, int], routing: RoutingConfig
) -> tuple[int, int]:
    """The size that an original model makes.

    Raises:
        ConfigError: another was asked for, or classes that it does not have.
    """
    made = (lr_size[0] * model.scale, lr_size[1] * model.scale)
    if size != made:
        raise ConfigError(
            f"this is an original {model.backbone.name} model, made for scale {model.scale} only: "
            f"it cannot make {size[0]} x {size[1]} pixels of {lr_size[0]} x {lr_size[1]} "
            "(height x width). Take a PCSR model for other scales"
        )
    if routing.fixed_class:
        raise ConfigError(
            f"there is no class {routing.fixed_class}: an original model has class 0 only"
        )
    plain = RoutingConfig(cost=routing.cost, refine=routing.refine)
    if routing.fixed_class is None and routing != plain:
        said = routing.mode if routing.value is None else f"{routing.mode}={routing.value:g}"
        raise ConfigError(
            f"{said}: an original model has one class and one cost; take a PCSR model for this"
        )
    return made

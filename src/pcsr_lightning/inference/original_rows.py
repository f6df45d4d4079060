"""An original model the fast way, strip by strip, as PCSR models run.

Legend: B batch, h w LR size, n HR rows of a strip, W HR columns.
"""

from __future__ import annotations

import weakref

from torch import nn

from pcsr_lightning.inference.checks import check_finite
from pcsr_lightning.inference.engine import Progress, RowSink
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.features import feature_rows, strip_rows, uses_numba
from pcsr_lightning.inference.flops import Flops, original_flops
from pcsr_lightning.inference.input_rows import InputRows
from pcsr_lightning.inference.output_rows import UpsampledRows
from pcsr_lightning.networks import Original
from pcsr_lightning.networks.original import TAIL_HALO

# One object for each model, so that what is known of it is found again.
_BODIES: weakref.WeakKeyDictionary[Original, nn.Module] = weakref.WeakKeyDictionary()


def run_original(
    model: Original,
    image: InputRows,
    execution: Execution,
    sink: RowSink,
    progress: Progress | None = None,
) -> Flops:
    """Upscales pictures; returns the cost of all of them.

    Args:
        model: on the pictures' device.
        image: ``(B, 3, h, w)`` in [0, 1], float32.
        execution: precision and strips.
        sink: takes rows ``(B, 3, n, W)``, float32, not clamped.
        progress: see :meth:`Engine.run`.

    Raises:
        PCSRError: NaN or infinite values.
    """
    dtype = execution.dtype(model)
    body = _BODIES.get(model)
    if body is None:
        body = _BODIES[model] = nn.Sequential(model.backbone, model.tail)
    mean = model.mean.float()[:, None, None]
    x = image.less(model.mean)
    halo = None if model.backbone.halo is None else model.backbone.halo + TAIL_HALO
    s, (h, w) = model.scale, x.shape[-2:]
    upsampled = None
    if model.backbone.adds_upsampled_input:
        upsampled = UpsampledRows(x, (h * s, w * s), model.backbone.upsamples_nearest)
    planar = uses_numba(body, execution, pictures=len(x))  # it has no MLPs
    features = feature_rows(body, halo, x, dtype, execution.is_fused(x.device), planar)
    rows = strip_rows(execution, features, x, s**2)
    for top, sr_BnW3 in execution.each(features.strips(rows), x.device.type):
        sr_B3nW = sr_BnW3.permute(0, 3, 1, 2).float() + mean
        if upsampled is not None:
            sr_B3nW += upsampled.rows(top, top + sr_B3nW.shape[2])
        check_finite(sr_B3nW, "the upscaled picture")
        sink(top, sr_B3nW)
        if progress is not None:
            progress((top + sr_B3nW.shape[2]) / (h * s))
    return original_flops(model, len(x) * h * w)

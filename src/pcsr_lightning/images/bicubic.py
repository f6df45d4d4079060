"""MATLAB-style resizing of tensors: bicubic is the degradation every PCSR number rests on.

Shapes: `x` is (..., h, w), the result (..., H, W). Index arrays: `N` output places, `T` taps.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

_SUPPORT = 2.0  # the cubic kernel is zero beyond two pixels

ResizeKernel = Literal["bicubic", "bilinear", "area"]
"""How a pixel is made of those around it; all are stretched when shrinking, against aliasing."""
RESIZE_KERNELS: tuple[ResizeKernel, ...] = get_args(ResizeKernel)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic kernel with a = -0.5."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < _SUPPORT, far, 0.0))


def _weights(kernel: ResizeKernel, distance_TN: Tensor, stretch: float) -> Tensor:
    """Of input pixels at so many input pixels from an output pixel's centre."""
    if kernel == "bicubic":
        return _cubic(distance_TN * stretch)
    if kernel == "bilinear":
        return (1 - distance_TN.abs() * stretch).clamp(min=0)
    # Area: the part of each input pixel that the output pixel covers.
    return (0.5 / stretch + 0.5 - distance_TN.abs()).clamp(0, 1)


@lru_cache(maxsize=512)
def _taps(
    n_in: int,
    n_out: int,
    scale: float,
    origin: float,
    device: torch.device,
    dtype: torch.dtype,
    kernel: ResizeKernel,
) -> tuple[Tensor, Tensor]:
    """Which input pixels each output pixel reads, and how much of each.

    Returns:
        `index` (T, N) int64 in [0, n_in) and `weight` (T, N), whose columns sum to one.
    """
    # Shrinking stretches the kernel by 1/scale, which makes it a low-pass filter.
    stretch = min(scale, 1.0)
    reach = _SUPPORT / stretch
    centre_N = origin + (torch.arange(n_out, dtype=torch.float64) + 0.5) / scale - 0.5
    first_N = torch.floor(centre_N - reach)
    index_TN = first_N + torch.arange(math.ceil(2 * reach) + 2, dtype=torch.float64)[:, None]
    weight_TN = _weights(kernel, index_TN - centre_N, stretch)
    weight_TN = weight_TN / weight_TN.sum(0)
    used_T = (weight_TN.abs() > 1e-12).any(1)
    index_TN, weight_TN = index_TN[used_T].long(), weight_TN[used_T]
    # Symmetric border: ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ..., a pattern of period 2n.
    index_TN = index_TN.remainder(2 * n_in)
    index_TN = torch.minimum(index_TN, 2 * n_in - 1 - index_TN)
    return index_TN.to(device), weight_TN.to(device=device, dtype=dtype)


def _resize_rows(
    x: Tensor, n_out: int, scale: float, origin: float, kernel: ResizeKernel
) -> Tensor:
    """Resizes dimension -2. A sum over taps, not a matrix product: the result must not depend
    on reduced-precision modes (TF32, autocast) that the surrounding training may switch on."""
    index_TN, weight_TN = _taps(x.shape[-2], n_out, scale, origin, x.device, x.dtype, kernel)
    out = x.new_zeros(*x.shape[:-2], index_TN.shape[1], x.shape[-1])
    for index_N, weight_N in zip(index_TN, weight_TN, strict=True):
        out.addcmul_(x.index_select(-2, index_N), weight_N[:, None])
    return out


def bicubic(
    x: Tensor,
    size: tuple[int, int],
    scale: float | Sequence[float] | None = None,
    origin: tuple[float, float] = (0.0, 0.0),
    kernel: ResizeKernel = "bicubic",
) -> Tensor:
    """Resizes as MATLAB's `imresize(x, 'bicubic')` does; neither rounds nor clamps.

    Kernel a = -0.5, stretched when shrinking (antialiasing), picture mirrored at its borders
    with the edge pixel repeated.

    Args:
        x: (..., h, w), floating point, on any device.
        size: (H, W) of the result.
        scale: output pixels per input pixel, one number or (vertical, horizontal);
            `size / (h, w)` if not given.
        kernel: `bicubic`, or another one, with the same borders.
        origin: (y, x) offset, in input pixels, of the output's first edge. With it a window cut
            with a margin is resized to exactly what the whole picture would give there: for a
            margin of m pixels, `origin=(m, m)` and an explicit `scale`. A margin of
            `2 / scale` pixels is enough when shrinking.

    Returns:
        (..., H, W), of `x`'s dtype.

    Raises:
        TypeError: `x` is not floating point.
        ValueError: a size or scale that is not positive.
    """
    if not x.is_floating_point():
        raise TypeError(f"bicubic needs a floating-point tensor, got {x.dtype}; convert it first.")
    h, w = x.shape[-2:]
    if scale is None:
        scale_y, scale_x = size[0] / max(h, 1), size[1] / max(w, 1)
    elif isinstance(scale, Sequence):
        scale_y, scale_x = (float(s) for s in scale)
    else:
        scale_y = scale_x = float(scale)
    if min(h, w, *size) < 1 or min(scale_y, scale_x) <= 0:
        raise ValueError(
            f"bicubic needs positive sizes and scale: input {h}x{w}, output {size[0]}x{size[1]}, "
            f"scale ({scale_y}, {scale_x})."
        )
    x = _resize_rows(x, size[0], scale_y, float(origin[0]), kernel)
    x = _resize_rows(x.transpose(-1, -2), size[1], scale_x, float(origin[1]), kernel)
    return x.transpose(-1, -2).contiguous()

"""Linear layers by oneDNN, with their ReLU in one pass over memory, where this torch can.

The operators are those that torch.compile itself emits for CPUs. They are no part of torch's
public interface, so they are tried once against the plain operators, which are the fallback. In
float32 PyTorch's own linear layers run in MKL, at half the speed on some processors of AMD, and
with other bits for other numbers of rows and threads.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.networks.modes import is_tracing


def linear(x_KC: Tensor, weight_NC: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, ``(K, N)``."""
    if _can(x_KC):
        return _onednn(x_KC, weight_NC, bias_N, "none")
    return F.linear(x_KC, weight_NC, bias_N)


def linear_relu(x_KC: Tensor, weight_NC: Tensor, bias_N: Tensor) -> Tensor:
    """``relu(x @ weight.T + bias)``, ``(K, N)``."""
    if _can(x_KC):
        return _onednn(x_KC, weight_NC, bias_N, "relu")
    return F.linear(x_KC, weight_NC, bias_N).relu_()


def _can(x_KC: Tensor) -> bool:
    # Traces (fvcore's counts are made from one) show the layer as it is.
    return x_KC.device.type == "cpu" and not is_tracing() and len(x_KC) > 0 and _works(x_KC.dtype)


def _onednn(x_KC: Tensor, weight_NC: Tensor, bias_N: Tensor | None, after: str) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x_KC, weight_NC, bias_N, after, [], "")
    return out


@cache
def _works(dtype: torch.dtype) -> bool:
    """Whether the fused operator exists here and gives what the plain ones give."""
    values = torch.linspace(-1, 1, 7 * 5 + 3 * 5 + 3).to(dtype)
    x, weight, bias = values[:35].view(7, 5), values[35:50].view(3, 5), values[50:]
    try:
        with torch.inference_mode():
            fused = _onednn(x, weight, bias, "relu") + _onednn(x, weight, None, "none")
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    plain = F.linear(x, weight, bias).relu() + F.linear(x, weight)
    return bool(torch.allclose(fused.float(), plain.float(), rtol=0.02, atol=1e-5 * 2**10))

"""MATLAB-style bicubic downscaling of many crops of different sizes at once.

Legend: B windows, S their side, C channels, n side of the results.
"""

import torch
from torch import Tensor

from pcsr_lightning.arithmetic import float32_products
from pcsr_lightning.images.bicubic import _cubic


def bicubic_crops(window_BCSS: Tensor, margin: int, side_B: Tensor, size: int) -> Tensor:
    """A square crop of each window, resized to `size` pixels a side.

    Each is what `bicubic` gives with `origin=(margin, margin)` and its own scale, to rounding; but
    it is one matrix product a direction for all crops, and nothing waits for the device.

    Args:
        window_BCSS: float32.
        margin: pixels above and left of each crop, and at least as many below and right of it;
            twice the scale of a crop is enough.
        side_B: the side of each crop, int64, on the windows' device.
        size: of the results.

    Returns:
        (B, C, size, size), float32.
    """
    B, C, S, _ = window_BCSS.shape
    weight_BnS = _weights(S, margin, side_B, size)
    with float32_products(window_BCSS.device.type):  # whatever a training has allowed
        across_BCSn = (window_BCSS.reshape(B, C * S, S) @ weight_BnS.mT).view(B, C, S, size)
        return weight_BnS[:, None] @ across_BCSn


def _weights(window: int, margin: int, side_B: Tensor, size: int) -> Tensor:
    """How much of each of a window's rows each row of the result is; the sums are one."""
    device = side_B.device
    scale_B11 = side_B.double()[:, None, None] / size
    place_n1 = torch.arange(size, dtype=torch.float64, device=device)[:, None] + 0.5
    centre_Bn1 = margin + place_n1 * scale_B11 - 0.5
    row_S = torch.arange(window, dtype=torch.float64, device=device)
    weight_BnS = _cubic((row_S - centre_Bn1) / scale_B11.clamp(min=1))
    return (weight_BnS / weight_BnS.sum(2, keepdim=True)).float()

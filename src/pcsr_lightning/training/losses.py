"""The losses of Eq. 6 and Eq. 7, per mean instead of per sum.

The reconstruction loss of Eq. 6 is ``torch.nn.L1Loss``, on images in [0, 1]: taking the bilinearly
upsampled input off both sides, as the equation does, changes nothing. Any other module of two
tensors can take its place (``loss._target_=torch.nn.HuberLoss``).

Legend: B batch, M classes, Q query pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SquaredError(nn.Module):
    """Mean squared error, which is what PSNR measures.

    Args:
        weight: of the error; 20 makes it about as large as the mean absolute error.
    """

    def __init__(self, weight: float = 20.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, sr_B3Q: Tensor, hr_B3Q: Tensor) -> Tensor:
        """The loss of an upscaled picture against the ground truth."""
        return self.weight * F.mse_loss(sr_B3Q, hr_B3Q)


def average_loss(
    logits_BMQ: Tensor, sum_over_ranks: Callable[[Tensor], Tensor] = lambda x: x
) -> Tensor:
    """How far the classes are from equal shares of the whole batch (Eq. 7).

    For each class ``|sum of p over the batch - B*Q/M| / (B*Q/M)``, then the mean over classes; for
    two classes both terms are equal and the value is the published implementation's.

    Args:
        logits_BMQ: the classifier's output before the softmax.
        sum_over_ranks: adds a tensor up over all processes, keeping its gradient.
    """
    M = logits_BMQ.shape[1]
    # In float32 under autocast too: bfloat16 could not tell shares apart that differ by 0.4%.
    dtype = torch.promote_types(logits_BMQ.dtype, torch.float32)
    totals_M = sum_over_ranks(logits_BMQ.softmax(dim=1, dtype=dtype).sum(dim=(0, 2)))
    # The probabilities of a pixel sum to 1, so the totals say how many pixels there were.
    target = totals_M.detach().sum() / M
    return ((totals_M - target).abs() / target).mean()

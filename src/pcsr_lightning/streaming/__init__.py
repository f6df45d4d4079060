"""Runs a convolutional network on an image row by row, in bounded memory; needs torch alone.

Rows go in from the top, and rows of the result come out as soon as they are complete. Every layer
keeps the few rows its kernel still needs, so no row is computed twice, the result equals the whole
image's up to rounding, and memory does not depend on the image's height. Neither image nor result
need ever be in memory as a whole.

Example:
    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(
    ...     nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 12, 3, padding=1),
    ...     nn.PixelShuffle(2),
    ... ).eval()
    >>> image_hw3 = torch.rand(100, 64, 3)
    >>> stream = RowStream(plan_rows(net), width=64, rows=16)
    >>> strips = []
    >>> with torch.inference_mode():
    ...     for top in range(0, 100, 16):
    ...         for strip_rw3 in stream.push(image_hw3[top : top + 16], last=top + 16 >= 100):
    ...             strips.append(strip_rw3.clone())
    ...     whole_13HW = net(image_hw3.permute(2, 0, 1)[None])
    >>> torch.cat(strips).shape
    torch.Size([200, 128, 3])
    >>> torch.allclose(torch.cat(strips), whole_13HW[0].permute(1, 2, 0), atol=1e-6)
    True

Supported are convolutions that keep the size, transposed convolutions that multiply it, pixel
shuffles, activations, batch norms in evaluation mode, concatenations along the channels, sums and
products. :func:`plan_rows` raises :class:`NotStreamable` for any other network.
"""

from pcsr_lightning.streaming.graph import NotStreamable
from pcsr_lightning.streaming.numba_runtime import kernels_pay, multiplies
from pcsr_lightning.streaming.plan import plan_rows
from pcsr_lightning.streaming.planar import is_planar, with_planar_kernels
from pcsr_lightning.streaming.steps import RowPlan
from pcsr_lightning.streaming.stream import RowStream, stream_values
from pcsr_lightning.streaming.whole import WholePlan

__all__ = [
    "NotStreamable",
    "RowPlan",
    "RowStream",
    "WholePlan",
    "is_planar",
    "kernels_pay",
    "multiplies",
    "plan_rows",
    "stream_values",
    "with_planar_kernels",
]

"""The result of an upscaling, put together from rows as they are finished.

Legend: B batch, h w LR size, H W HR size, M classes, n HR rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcsr_lightning.inference.engine import Engine, Progress
from pcsr_lightning.inference.flops import Flops, ModelMacs
from pcsr_lightning.inference.output_rows import INTEGER_TYPES, as_integers
from pcsr_lightning.inference.time_budget import Timing
from pcsr_lightning.routing import RoutingPolicy


@dataclass(frozen=True)
class UpscaleResult:
    """An upscaled picture and what it cost.

    Attributes:
        image: ``(B, 3, H, W)``, float32 in [0, 1]; or integers, where those were asked for.
        assignment: ``(B, H, W)``, uint8: the class of each pixel, 0 the heaviest.
        flops: the cost of the whole batch.
        shares: the part of the pixels in each class, heaviest first.
        timing: how a time budget was kept, if there was one.
    """

    image: Tensor
    assignment: Tensor
    flops: Flops
    shares: tuple[float, ...]
    timing: Timing | None = None


class Output:
    """A result that is filled row by row.

    Args:
        batch: ``B``.
        size: ``(H, W)``.
        device: where it is kept.
        bits: 8 or 16 for integers, as in a file; float32 if ``None``.
    """

    def __init__(
        self,
        batch: int,
        size: tuple[int, int],
        device: torch.device,
        bits: int | None = None,
    ) -> None:
        self._bits = bits
        dtype = torch.float32 if bits is None else INTEGER_TYPES[bits]
        # Outside of inference mode, so that callers get ordinary tensors.
        with torch.inference_mode(False):
            self.image_B3HW = torch.empty(batch, 3, *size, dtype=dtype, device=device)

    def put(self, top: int, rows_B3nW: Tensor) -> None:
        """Rows from ``top`` on; overwrites them, to take no memory of its own."""
        into = self.image_B3HW[:, :, top : top + rows_B3nW.shape[2]]
        if self._bits is not None:
            rows_B3nW = as_integers(rows_B3nW, self._bits)
        else:
            rows_B3nW = rows_B3nW.clamp_(0, 1)
        into.copy_(rows_B3nW)


def collect(
    engine: Engine,
    macs: ModelMacs,
    policy: RoutingPolicy,
    bits: int | None = None,
    progress: Progress | None = None,
) -> UpscaleResult:
    """Runs an engine and puts its rows together.

    Args:
        engine: ready to run.
        macs: what the network's parts cost.
        policy: which class each pixel takes.
        bits: see :class:`Output`.
        progress: see :meth:`Engine.run`.
    """
    B, (h, w), (H, W) = len(engine.lr), engine.grid.lr_size, engine.grid.size
    device = engine.lr.device
    output = Output(B, (H, W), device, bits)
    class_BHW = torch.empty(B, H, W, dtype=torch.uint8, device=device)

    def keep_classes(top: int, rows_BnW: Tensor) -> None:
        class_BHW[:, top : top + rows_BnW.shape[1]] = rows_BnW

    with torch.inference_mode():
        done = engine.run(policy, output.put, keep_classes, progress, bits)
    flops = done.flops(macs, B * h * w, policy)
    return UpscaleResult(output.image_B3HW, class_BHW, flops, done.shares)

"""A picture's transparency, upscaled by the network as a grey picture.

Its edges come out as sharp as those of the colours. It is ready before the colours are begun, and
waits on disk, compact, since they are made in strips.

Legend: h w LR size, H W HR size, n HR rows of a strip.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile, gettempdir
from typing import IO

import numpy as np
import torch
from torch import Tensor

from pcsr_lightning.errors import PCSRError
from pcsr_lightning.images import AlphaRange
from pcsr_lightning.inference.engine import Progress
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.flops import Flops
from pcsr_lightning.inference.output_rows import INTEGER_TYPES
from pcsr_lightning.inference.time_budget import Timing
from pcsr_lightning.inference.upscale_rows import upscale_rows
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.routing import RoutingConfig

_IN_MEMORY = 2**22
"""Bytes of an upscaled transparency that are not worth a file."""
_NUMPY_TYPES = {torch.uint8: np.uint8, torch.uint16: np.uint16}


class AlphaRows:
    """An upscaled transparency, its rows in order.

    Attributes:
        flops: what it cost.
        timing: how a time budget was kept, if there was one.
    """

    def __init__(
        self,
        width: int,
        constant: float | None,
        file: IO[bytes],
        dtype: torch.dtype,
        flops: Flops,
        timing: Timing | None = None,
    ) -> None:
        self._width, self._constant, self._file, self._dtype = width, constant, file, dtype
        self.flops, self.timing = flops, timing

    def take(self, n: int) -> Tensor:
        """The next rows, ``(1, n, W)``: integers over their range; float32 of a constant one."""
        if self._constant is not None:
            return torch.full((1, n, self._width), self._constant)
        kind = np.dtype(_NUMPY_TYPES[self._dtype])
        data = bytearray(self._file.read(n * self._width * kind.itemsize))
        return torch.from_numpy(np.frombuffer(data, kind).reshape(1, n, self._width))


@contextmanager
def upscaled_alpha(
    model: PCSR | Original,
    alpha_1hw: Tensor,
    size: tuple[int, int],
    routing: RoutingConfig,
    execution: Execution,
    bits: int = 8,
    progress: Progress | None = None,
) -> Iterator[AlphaRows]:
    """Upscales a transparency; one that is everywhere the same costs nothing.

    No pixel is more or less transparent than the LR pixels around it.

    Args:
        model: any.
        alpha_1hw: in [0, 1], or uint8 or uint16 over their range.
        size: ``(H, W)``.
        routing: as of the picture.
        execution: precision and strips.
        bits: 8 or 16, of the integers.
        progress: as for ``upscale``.

    Raises:
        PCSRError: as ``upscale_rows``; or no room for a temporary file.
    """
    alpha, dtype, top = AlphaRange(alpha_1hw), INTEGER_TYPES[bits], 0
    with SpooledTemporaryFile(_IN_MEMORY) as file:

        def sink(rows_3nW: Tensor, _: Tensor) -> None:
            nonlocal top
            grey_1nW = rows_3nW.cpu().float().mean(0, keepdim=True) / (2**bits - 1)
            grey_1nW = alpha.clamp(grey_1nW, top, size)
            top += grey_1nW.shape[1]
            values = (grey_1nW * (2**bits - 1)).round().numpy()
            try:
                file.write(values.astype(_NUMPY_TYPES[dtype]).tobytes())
            except OSError as error:
                raise PCSRError(
                    f"no room for the transparency in {gettempdir()} ({error.strerror}): make "
                    "some, or set TMPDIR to another folder"
                ) from error

        flops, timing = Flops(0.0, 0.0), None
        if alpha.constant is None:
            done = upscale_rows(model, alpha, size, sink, routing, execution, bits, progress)
            flops, timing = done.flops, done.timing
            file.seek(0)
        yield AlphaRows(size[1], alpha.constant, file, dtype, flops, timing)

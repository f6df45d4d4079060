"""Pictures enlarged patch by patch and put together again, as ClassSR and ARM do it (Table 3).

Every patch is a picture of its own: its features, its statistics for ADM, its refinement and the
enlarged input below it know nothing of its neighbours. Routing by ``k`` is per pixel anyway.

Legend: h w LR size, H W HR size, p P side of a patch in LR and HR pixels, N patches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.pairs import PATCH_SIZES, Protocol
from pcsr_lightning.inference import (
    Flops,
    RoutingConfig,
    UpscaleResult,
    upscale_by,
    upscale_each,
)
from pcsr_lightning.inference.engine import RowSink
from pcsr_lightning.inference.result import Output
from pcsr_lightning.networks import AnyNetwork, PatchRouted
from pcsr_lightning.networks.patch_routed import PATCH, STEP

BATCH_CPU, BATCH_GPU = 2**14, 2**18
"""LR pixels of the patches that go through the network at once: one patch of 128 on a CPU."""


@dataclass(frozen=True)
class Layout:
    """Square patches of ``side`` LR pixels, one every ``step``. Pictures must be fully covered."""

    side: int
    step: int

    @classmethod
    def of(cls, protocol: Protocol, patch_size: int | None = None) -> Layout | None:
        """The patches of a protocol; ``None`` where pictures are enlarged whole.

        Args:
            protocol: ``overlapped`` has patches of 32 pixels every 28.
            patch_size: of ``patches``: 16, 32 (if not given), 64 or 128 LR pixels.

        Raises:
            ConfigError: another size, or one for a protocol that does not take it.
        """
        if protocol is Protocol.PATCHES:
            side = PATCH if patch_size is None else patch_size
            if side not in PATCH_SIZES:
                names = ", ".join(map(str, PATCH_SIZES[:-1]))
                raise ConfigError(f"patch_size={side}: must be {names} or {PATCH_SIZES[-1]}")
            return cls(side, side)
        if patch_size is not None:
            raise ConfigError(
                f"patch_size={patch_size}: this is for protocol=patches, not protocol={protocol}"
            )
        return cls(PATCH, STEP) if protocol is Protocol.OVERLAPPED else None

    def patches(self, lr_size: tuple[int, int]) -> tuple[int, int]:
        """How many patches a picture has below and beside each other."""
        down, across = ((n - self.side) // self.step + 1 for n in lr_size)
        return down, across

    def cut(self, lr_13hw: Tensor) -> Iterator[Tensor]:
        """Batches of patches ``(N, 3, p, p)``, row by row from the top left."""
        columns_1KN = F.unfold(lr_13hw, self.side, stride=self.step)
        patches_N3pp = columns_1KN[0].T.reshape(-1, 3, self.side, self.side)
        limit = BATCH_CPU if lr_13hw.device.type == "cpu" else BATCH_GPU
        yield from torch.split(patches_N3pp, max(1, limit // self.side**2))

    def join(self, sr_N3PP: Sequence[Tensor], lr_size: tuple[int, int]) -> Tensor:
        """Batches of enlarged patches as one picture ``(1, 3, H, W)``, averaged where they overlap.

        Args:
            sr_N3PP: in :meth:`cut`'s order.
            lr_size: of the picture that was cut.
        """
        P, Q = sr_N3PP[0].shape[-2:]
        sy, sx = P // self.side, Q // self.side
        size, step = (lr_size[0] * sy, lr_size[1] * sx), (self.step * sy, self.step * sx)
        columns_1KN = torch.cat([sr.flatten(1) for sr in sr_N3PP]).T[None]
        sums_13HW = F.fold(columns_1KN, size, (P, Q), stride=step)
        if self.step == self.side:
            return sums_13HW
        ones_1KN = columns_1KN.new_ones(1, P * Q, columns_1KN.shape[-1])
        return sums_13HW / F.fold(ones_1KN, size, (P, Q), stride=step)


def upscale_patches(
    model: AnyNetwork,
    lr_13hw: Tensor,
    scale: tuple[float, float],
    routing: RoutingConfig,
    layout: Layout | None = None,
    bits: int | None = None,
) -> UpscaleResult:
    """Enlarges a picture, whole or in patches, see :class:`PatchRows`.

    Only two rows of enlarged patches are kept beside the result. In the class map a pixel of
    several patches has the heaviest of its classes.

    Args:
        model: on the picture's device.
        lr_13hw: the picture.
        scale: integers where there are patches.
        routing: ADM and refinement see one patch at a time.
        layout: where the patches lie; whole without.
        bits: 8 gives the picture as bytes; patches are averaged before they are rounded.
    """

    def upscaled(part_B3hw: Tensor, bits: int | None) -> UpscaleResult:
        if isinstance(model, PatchRouted):
            return upscale_each(model, part_B3hw, routing)
        return upscale_by(model, part_B3hw, routing, scale=scale, bits=bits)

    if layout is None:
        return upscaled(lr_13hw, bits)
    results = (upscaled(part_B3hw, None) for part_B3hw in layout.cut(lr_13hw))
    return _joined(results, layout, lr_13hw, scale, bits)


def upscale_padded(model: PatchRouted, lr_13hw: Tensor, routing: RoutingConfig) -> UpscaleResult:
    """A picture of any size in overlapping patches, its last rows and columns repeated to fit.

    Args:
        model: on the picture's device.
        lr_13hw: the picture.
        routing: see :func:`~pcsr_lightning.inference.upscale_each`.

    Returns:
        Of the picture alone; costs and shares are those of all patches.
    """
    h, w = lr_13hw.shape[-2:]
    more_h, more_w = (max(PATCH, n + (PATCH - n) % STEP) - n for n in (h, w))
    padded_13hw = F.pad(lr_13hw, (0, more_w, 0, more_h), mode="replicate")
    scale, layout = float(model.scale), Layout(PATCH, STEP)
    found = upscale_patches(model, padded_13hw, (scale, scale), routing, layout)
    H, W = h * model.scale, w * model.scale
    return replace(found, image=found.image[..., :H, :W], assignment=found.assignment[..., :H, :W])


class PatchRows:
    """Enlarged patches that become rows of a picture, averaged where they overlap.

    Costs are summed, and the shares are those of all patches' pixels, so that those that lie in
    several patches count as often as they were computed.

    Args:
        layout: where the patches lie.
        lr_size: of the picture that was cut.
        sink: takes the rows, averaged and not rounded, as soon as nothing else is added to them.
    """

    def __init__(self, layout: Layout, lr_size: tuple[int, int], sink: RowSink) -> None:
        self._layout, self._width, self._sink = layout, lr_size[1], sink
        self._down, self._across = layout.patches(lr_size)
        self._row = 0
        self._waiting: list[Tensor] = []
        self._flops: list[Flops] = []
        self._counts: list[list[int]] = []

    def add(self, result: UpscaleResult) -> None:
        """Takes the next batch, in the order of :meth:`Layout.cut`."""
        self._flops.append(result.flops)
        classes_N = result.assignment.flatten()
        self._counts.append(torch.bincount(classes_N, minlength=len(result.shares)).tolist())
        self._waiting.append(result.image)
        # Two rows of patches together hold all that is added to the rows between them.
        rows = min(2, self._down)
        while self._row + rows <= self._down and self._enough(rows * self._across):
            self._finish(rows)

    def _enough(self, patches: int) -> bool:
        return sum(map(len, self._waiting)) >= patches

    def _finish(self, rows: int) -> None:
        side, step = self._layout.side, self._layout.step
        sr_N3PP = torch.cat(self._waiting)
        size = (side + (rows - 1) * step, self._width)
        joined_13nW = self._layout.join([sr_N3PP[: rows * self._across]], size)
        sy = sr_N3PP.shape[2] // side
        first = 0 if self._row == 0 else side - step
        last = size[0] if self._row + rows == self._down else side
        top = (self._row * step + first) * sy
        self._sink(top, joined_13nW[:, :, first * sy : last * sy])
        self._waiting = [sr_N3PP[self._across :]]
        self._row += 1

    @property
    def flops(self) -> Flops:
        """Of all patches."""
        return Flops(
            sum(each.gmacs for each in self._flops), sum(x.gflops_published for x in self._flops)
        )

    @property
    def shares(self) -> tuple[float, ...]:
        """Likewise."""
        counts_M = [sum(counts) for counts in zip(*self._counts, strict=True)]
        return tuple(count / sum(counts_M) for count in counts_M)


def _joined(
    results: Iterable[UpscaleResult],
    layout: Layout,
    lr_13hw: Tensor,
    scale: tuple[float, float],
    bits: int | None,
) -> UpscaleResult:
    """The picture of batches of patches; each is asked for when the last has been added."""
    h, w = lr_13hw.shape[-2:]
    (sy, sx), (_, across) = map(int, scale), layout.patches((h, w))
    output = Output(1, (h * sy, w * sx), lr_13hw.device, bits)
    class_HW = torch.full((h * sy, w * sx), 255, dtype=torch.uint8, device=lr_13hw.device)
    rows, done = PatchRows(layout, (h, w), output.put), 0
    for result in results:
        rows.add(result)
        for classes_PP in result.assignment:
            top, left = (layout.step * n for n in divmod(done, across))
            part = (
                slice(top * sy, (top + layout.side) * sy),
                slice(left * sx, (left + layout.side) * sx),
            )
            class_HW[part] = torch.minimum(class_HW[part], classes_PP)
            done += 1
    return UpscaleResult(output.image_B3HW, class_HW[None], rows.flops, rows.shares)

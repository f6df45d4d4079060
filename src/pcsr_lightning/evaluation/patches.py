"""Pictures enlarged patch by patch and put together again, as ClassSR and ARM do it (Table 3).

Every patch is a picture of its own: its features, its statistics for ADM, its refinement and the
enlarged input below it know nothing of its neighbours. Routing by ``k`` is per pixel anyway.

Legend: h w LR size, H W HR size, p P side of a patch in LR and HR pixels, N patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """Enlarges a picture, whole or in patches, see :func:`join_results`.

    Args:
        model: on the picture's device.
        lr_13hw: the picture.
        scale: integers where there are patches.
        routing: ADM and refinement see one patch at a time.
        layout: where the patches lie; whole without.
        bits: 8 gives a whole picture as bytes; patches are averaged first, and never rounded.
    """
    with torch.inference_mode():
        parts = [lr_13hw] if layout is None else layout.cut(lr_13hw)
        if isinstance(model, PatchRouted):
            results = [upscale_each(model, x_B3hw, routing) for x_B3hw in parts]
        else:
            bits = bits if layout is None else None
            results = [
                upscale_by(model, x_B3hw, routing, scale=scale, bits=bits) for x_B3hw in parts
            ]
    return join_results(results, layout, (lr_13hw.shape[-2], lr_13hw.shape[-1]))


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


def join_results(
    results: Sequence[UpscaleResult], layout: Layout | None, lr_size: tuple[int, int]
) -> UpscaleResult:
    """The result of a picture from those of its batches of patches; without a layout, the only one.

    Costs are summed, and the shares are those of all patches' pixels, so that those that lie in
    several patches count as often as they were computed; in the class map such a pixel has the
    heaviest of its classes. What is averaged is not rounded before.
    """
    if layout is None:
        return results[0]
    with torch.inference_mode():
        image_13HW = layout.join([r.image for r in results], lr_size)
        classes_NPP = torch.cat([r.assignment for r in results])
    counts = torch.bincount(classes_NPP.flatten(), minlength=len(results[0].shares)).tolist()
    return UpscaleResult(
        image_13HW.clone(),
        _heaviest(classes_NPP, layout, lr_size)[None],
        Flops(sum(r.flops.gmacs for r in results), sum(r.flops.gflops_published for r in results)),
        tuple(count / classes_NPP.numel() for count in counts),
    )


def _heaviest(classes_NPP: Tensor, layout: Layout, lr_size: tuple[int, int]) -> Tensor:
    P, Q = classes_NPP.shape[-2:]
    sy, sx = P // layout.side, Q // layout.side
    map_HW = classes_NPP.new_full((lr_size[0] * sy, lr_size[1] * sx), 255)
    across = (lr_size[1] - layout.side) // layout.step + 1
    for i, classes_PP in enumerate(classes_NPP):
        top, left = (layout.step * n for n in divmod(i, across))
        part = map_HW[top * sy : top * sy + P, left * sx : left * sx + Q]
        torch.minimum(part, classes_PP, out=part)
    return map_HW

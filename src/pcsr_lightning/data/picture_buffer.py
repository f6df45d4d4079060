"""All pictures in one buffer on the device that trains, and windows gathered from it there.

Shapes: `B` windows, `S` their side, `P` pictures, `N` pixels of all of them.
"""

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from pcsr_lightning.data.crop_plan import CropPlan
from pcsr_lightning.data.cutting import Pixels
from pcsr_lightning.data.picture_cache import PictureCache
from pcsr_lightning.data.transfer import to_device
from pcsr_lightning.errors import ConfigError

_log = logging.getLogger(__name__)


class PictureBuffer:
    """Pictures of any sizes, one after the other in one uint8 tensor.

    Args:
        pictures: each ``(height, width, 3)``.
        sizes: ``(height, width)`` of each.
        device: where they are kept.
    """

    def __init__(
        self,
        pictures: Iterable[Pixels],
        sizes: Sequence[tuple[int, int]],
        device: torch.device,
    ) -> None:
        self.device = device
        size_P2 = np.asarray(sizes, np.int64).reshape(-1, 2)
        end_P = size_P2.prod(1).cumsum()
        first_P = end_P - size_P2.prod(1)
        self._pixel_N3 = torch.empty((int(end_P[-1]), 3), dtype=torch.uint8, device=device)
        for pixels, first, end in zip(pictures, first_P.tolist(), end_P.tolist(), strict=True):
            # A copy: tensors want memory that may be written, and a cache's may not.
            self._pixel_N3[first:end] = torch.from_numpy(np.array(pixels)).view(-1, 3)
        self._place_3P = to_device(np.stack([first_P, *size_P2.T]), device)

    def cut_windows(self, plan: CropPlan) -> Tensor:
        """The windows that :func:`pcsr_lightning.data.cutting.cut_windows` gives, on the device."""
        numbers_7B = to_device(plan.numbers_7B, self.device)
        picture_B, row_B, row_step_B, column_B, column_step_B, transposed_B, _ = numbers_7B
        first_B, height_B, width_B = self._place_3P.index_select(1, picture_B)
        at_S = torch.arange(plan.window, device=self.device)
        row_BS = mirrored(row_B[:, None] + row_step_B[:, None] * at_S, height_B[:, None])
        column_BS = mirrored(column_B[:, None] + column_step_B[:, None] * at_S, width_B[:, None])
        start_BS = first_B[:, None] + row_BS * width_B[:, None]
        plain_BSS = start_BS[:, :, None] + column_BS[:, None, :]
        turned_BSS = start_BS[:, None, :] + column_BS[:, :, None]
        index_BSS = torch.where(transposed_B[:, None, None] == 1, turned_BSS, plain_BSS)
        return self._pixel_N3[index_BSS].permute(0, 3, 1, 2).contiguous()


def buffer_if_wanted(
    wanted: bool | None, cache: PictureCache, numbers: Sequence[int], device: torch.device
) -> PictureBuffer | None:
    """The pictures on the device that trains, if they are to be kept there; says so in one line.

    Args:
        wanted: the setting ``data.on_device``; ``None`` for a GPU with room enough.
        cache: the pictures.
        numbers: which of them are trained on.
        device: that trains.

    Raises:
        ConfigError: they are wanted there, and there is no room.
    """
    sizes = [(cache.pictures[n].height, cache.pictures[n].width) for n in numbers]
    if not _fits(wanted, sum(3 * height * width for height, width in sizes), device):
        return None
    return PictureBuffer((cache.pixels(n) for n in numbers), sizes, device)


def _fits(wanted: bool | None, size: int, device: torch.device) -> bool:
    if wanted is False or (wanted is None and device.type != "cuda"):
        return False
    pictures = f"{size / 1e9:.1f} GB of pictures"
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if wanted and size > free:
            raise ConfigError(
                f"data.on_device=true: there are {pictures}, and {device} has {free / 1e9:.1f} GB "
                "free. Leave it out, and crops are cut on the CPU."
            )
        if not wanted and size > free // 2:
            room = f"more than half of the {free / 1e9:.1f} GB free on {device}"
            _info("Data: %s, %s: crops are cut on the CPU", pictures, room)
            return False
    _info("Data: %s, kept on %s", pictures, device)
    return True


def mirrored(index: Tensor, size: Tensor | int) -> Tensor:
    """Places in a row of `size` pixels, mirrored at both borders with the edge pixel repeated."""
    index = index.remainder(2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


_info = rank_zero_only(_log.info)

"""What a picture file holds. Shapes: `rgb` is (3, h, w), `alpha` (1, h, w)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pcsr_lightning.images.metadata import Metadata


@dataclass(frozen=True)
class Picture:
    """A picture file's content, upright.

    Attributes:
        rgb: float32 (3, h, w) in [0, 1]; three equal channels for a grey file. It may also hold
            whole numbers, uint8 or uint16 over their whole range: `read` gives those if asked to,
            and whatever takes pictures here takes both, see :func:`floats`.
        alpha: float32 (1, h, w) in [0, 1], or whole numbers likewise; not premultiplied; None when
            the file has none.
        bits: 8 or 16 bits a channel, in the file; 16 for anything between as well.
        grey: the file holds one colour channel, and `write` will write one where it can.
        metadata: colour profile, EXIF, XMP, IPTC and resolution.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    bits: int = 8
    grey: bool = False
    metadata: Metadata = field(default_factory=Metadata)

    def upscaled(self, rgb: Tensor, alpha: Tensor | None) -> Picture:
        """The same metadata around other pixels, printed as large as before.

        The pixels per mm grow with the pixels, so that the picture keeps its physical size.

        Args:
            rgb: (3, H, W), as `rgb` above.
            alpha: (1, H, W) or None.
        """
        (h, w), (large_h, large_w) = self.rgb.shape[-2:], rgb.shape[-2:]
        metadata = self.metadata.resized(large_w / w, large_h / h)
        return replace(self, rgb=rgb, alpha=alpha, metadata=metadata)


def floats(values: Tensor) -> Tensor:
    """Floating point in [0, 1]: whole numbers over their range, as float32; others as they are.

    Args:
        values: uint8, uint16 or floating point, of any shape.
    """
    if values.is_floating_point():
        return values
    top = torch.tensor(torch.iinfo(values.dtype).max, dtype=torch.float32, device=values.device)
    # A number that is no tensor would be multiplied by its inverse on a GPU.
    return values.float() / top

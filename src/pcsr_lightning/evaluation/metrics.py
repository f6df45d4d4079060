"""How alike two pictures are."""

from __future__ import annotations

from torch import Tensor

from pcsr_lightning.pictures.protocol import eight_bit, shave


def psnr(sr_13HW: Tensor, hr_13HW: Tensor, border: int) -> float:
    """PSNR on RGB in dB, both pictures in [0, 1] rounded to 8 bit, ``border`` pixels shaved.

    Infinite for pictures that are equal after rounding.
    """
    # Imported here: torchmetrics takes seconds, which a mistyped command must not have to wait for.
    from torchmetrics.image import PeakSignalNoiseRatio

    # With `dim`, each picture has its own logarithm: errors of a batch are not pooled.
    metric = PeakSignalNoiseRatio(data_range=255.0, dim=(1, 2, 3)).to(sr_13HW.device)
    value: Tensor = metric(shave(eight_bit(sr_13HW), border), shave(eight_bit(hr_13HW), border))
    return float(value)

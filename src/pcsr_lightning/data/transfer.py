"""Small arrays on their way to the device that trains."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(numbers: NDArray[np.int64], device: torch.device) -> Tensor:
    """An array as a tensor on a device; the CPU does not wait for a GPU's copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(numbers))
    if device.type != "cuda":
        return tensor.to(device)
    # From memory that is not pinned the copy would wait until the GPU has done all of its work.
    return tensor.pin_memory().to(device, non_blocking=True)

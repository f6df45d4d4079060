"""Opens files that ``torch.save`` wrote, without ever running what they may contain."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from pcsr_lightning.errors import ModelFileError
from pcsr_lightning.weights.limits import check_unpacked

# All that reading a damaged file has been seen to raise: the reader checks little by itself.
_DAMAGE = (
    OSError, RuntimeError, EOFError, zipfile.BadZipFile, struct.error, LookupError, ValueError,
    TypeError, AttributeError, AssertionError, ArithmeticError, MemoryError,
)  # fmt: skip


def read_plain(path: Path) -> Any:
    """What a file of ``torch.save`` holds, if that is tensors and plain values alone.

    Raises:
        ModelFileError: it cannot be read, or holds other objects; in one line.
    """
    try:
        check_unpacked(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd pickles are read or refused all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelFileError(
            f"{path}: holds objects other than weights and plain values, and was not opened"
        ) from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelFileError(f"{path}: cannot be read as a checkpoint ({reason})") from None

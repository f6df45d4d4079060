"""Limits a network's memory to what its file has weights for, whatever sizes the file claims."""

from __future__ import annotations

import math
import mmap
import stat
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pcsr_lightning.errors import ModelFileError

MAX_CONFIG_BYTES = 2**24
"""Of a file that describes a network: those of this library have a few hundred."""
# A custom backbone may create and drop a few layers in its constructor.
_TIMES, _SPARE_TENSORS, _SPARE_VALUES = 4, 100, 2**20


class TooLargeError(Exception):
    """The network described by a file would be larger than the file's weights."""


def check_regular(path: Path) -> None:
    """Refuses pipes and devices, which could be endless, before they are opened.

    Raises:
        ModelFileError: not a regular file.
        OSError: there is none.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ModelFileError(f"{path}: is a folder, pipe, socket or device, not a model file")


def check_unpacked(path: Path) -> None:
    """Refuses a checkpoint that is larger in memory than on disk.

    ``torch.save`` does not compress; and of what PyTorch's reader of plain values can be made to
    call, a ``bytearray`` takes as much memory as it is told to.

    Raises:
        ModelFileError: it would.
        zipfile.BadZipFile: it is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            packed = content[:4] == b"PK\3\4"
            if content.find(b"\nbytearray\n") >= 0:
                raise ModelFileError(f"{path}: holds a bytearray, and was not opened")
        if not packed:
            return
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
    claimed, size = sum(part.file_size for part in parts), path.stat().st_size
    if claimed > size or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ModelFileError(
            f"{path}: is compressed, {claimed:,} bytes in a file of {size:,}, and was not "
            "unpacked; torch.save writes checkpoints that are not"
        )


def check_claims(tensors: Collection[Tensor], path: Path) -> None:
    """Refuses tensors that claim more values than the file can hold.

    Raises:
        ModelFileError: they do.
    """
    claimed = sum(t.numel() * t.element_size() for t in tensors)
    size = path.stat().st_size
    if claimed > size:
        raise ModelFileError(
            f"{path}: its tensors claim {claimed:,} bytes in a file of {size:,}: it is damaged"
        )


class Limited(TorchFunctionMode):  # type: ignore[no-any-unimported, unused-ignore]
    """Within it, a network that is much larger than ``tensors`` is not built to its end.

    Layers take their weights' memory from ``torch.empty``; what is asked of that is added up before
    it is asked for. Other threads are not concerned.

    Raises:
        TooLargeError: while a network is being built.
    """

    def __init__(self, tensors: Collection[Tensor]) -> None:
        super().__init__()
        self._held = len(tensors), sum(t.numel() for t in tensors)
        self._tensors = self._values = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.empty and args:
            sizes = args[0] if isinstance(args[0], tuple | list) else args
            # What is no size at all is for PyTorch to refuse.
            if all(isinstance(n, int) and n >= 0 for n in sizes):
                self._count(math.prod(sizes))
        return func(*args, **(kwargs or {}))

    def _count(self, values: int) -> None:
        self._tensors, self._values = self._tensors + 1, self._values + values
        tensors_held, values_held = self._held
        if (
            self._tensors > _TIMES * tensors_held + _SPARE_TENSORS
            or self._values > _TIMES * values_held + _SPARE_VALUES
        ):
            raise TooLargeError(
                f"they are of a network of at least {self._tensors:,} tensors and "
                f"{_short(self._values)} values, and the file holds {tensors_held:,} tensors of "
                f"{values_held:,} values in all"
            )


def _short(number: int) -> str:
    return f"{number:,}" if number < 10**15 else "over 10^15"

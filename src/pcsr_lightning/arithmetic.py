"""How exactly float32 numbers are multiplied, whatever the process has set.

PyTorch's switches for TF32 and the like belong to the whole process. Here they are set for the
time of a computation and put back, also while other threads compute.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# From the general to the special: what is "none" takes the value of the one above. By PyTorch's own
# functions, since `torch.backends.mkldnn.fp32_precision = ...` sets the general switch instead.
_GROUPS = (("generic", "all"), ("cuda", "all"), ("mkldnn", "all"))
_CUDA = (("cuda", "matmul"), ("cuda", "conv"), ("cuda", "rnn"))
_CPU = (("mkldnn", "matmul"), ("mkldnn", "conv"), ("mkldnn", "rnn"))
_Switch = tuple[str, str]


class _Held:
    """The switches while somebody computes; threads that want the same share them."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._tf32, self._users = False, 0
        self._before: dict[_Switch, str] = {}
        self._legacy: tuple[str, bool] | None = None

    def take(self, tf32: bool) -> None:
        with self._free:
            self._free.wait_for(lambda: not self._users or self._tf32 == tf32)
            if not self._users:
                self._set(tf32)
            self._tf32, self._users = tf32, self._users + 1

    def give_back(self) -> None:
        with self._free:
            self._users -= 1
            if not self._users:
                self._put_back()
                self._free.notify_all()

    def _set(self, tf32: bool) -> None:
        self._legacy = _legacy()
        # A switch shows its own value while those above it are "none".
        for switch in (*_GROUPS, *_CUDA, *_CPU):
            self._before[switch] = torch._C._get_fp32_precision_getter(*switch)
            torch._C._set_fp32_precision_setter(*switch, "none")
        if self._legacy is not None:
            # Or the old functions, which torch.compile calls up to 2.12, would raise meanwhile.
            _set_legacy("high" if tf32 else "highest", tf32)
        for switch in _CUDA:
            torch._C._set_fp32_precision_setter(*switch, "tf32" if tf32 else "ieee")
        for switch in _CPU:
            torch._C._set_fp32_precision_setter(*switch, "ieee")

    def _put_back(self) -> None:
        if self._legacy is not None:
            _set_legacy(*self._legacy)
        for switch, value in self._before.items():
            torch._C._set_fp32_precision_setter(*switch, value)


_HELD = _Held()


@contextmanager
def float32_products(device_type: str, tf32: bool = False) -> Iterator[None]:
    """Products of float32 numbers are IEEE float32 in this block, without autocast.

    Threads may be in it at the same time; one that asks for the other kind waits. So a block shall
    be short, and call no code of others.

    Args:
        device_type: whose autocast is switched off.
        tf32: on CUDA, round factors to the ten bits of TF32 instead, in products and convolutions.
    """
    _HELD.take(tf32)
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        _HELD.give_back()


def _legacy() -> tuple[str, bool] | None:
    """The older switches of cuBLAS and cuDNN; ``None`` if the newer ones say something else."""
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:  # how PyTorch says so
        return None


def _set_legacy(matmul: str, cudnn: bool) -> None:
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = cudnn

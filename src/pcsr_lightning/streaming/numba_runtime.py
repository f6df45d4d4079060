"""How kernels that numba compiles are loaded, tried and run on PyTorch's number of threads."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

_log = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.1}
"""Of a kernel's results on a small example, as a share of the largest value."""

MOST_THREADS = 8
"""With more, handing parts to threads takes as long as the parts."""


def openmp_sleeps(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether PyTorch's threads soon sleep when they have nothing to do, as the commands set it.

    By default they spin for milliseconds, and take the cores from the kernels' threads.
    """
    if environment.get("OMP_WAIT_POLICY", "").lower() == "passive":
        return True
    name, most = ("GOMP_SPINCOUNT", 10_000) if sys.platform == "linux" else ("KMP_BLOCKTIME", 1)
    turns = environment.get(name, "")
    return turns.isdecimal() and int(turns) <= most


_SLEEPS = openmp_sleeps()  # as it was when PyTorch was imported, which is when it counts


def kernels_pay() -> bool:
    """Whether kernels of numba are the faster ones with the threads that PyTorch has now."""
    threads = torch.get_num_threads()
    return threads == 1 or (_SLEEPS and threads <= MOST_THREADS)


@cache
def planar_kernels() -> ModuleType | None:
    """The kernels, ``None`` where numba is missing or does not work."""
    if find_spec("numba") is None:
        return None
    try:
        from pcsr_lightning.streaming import planar_kernels as kernels
    except (ImportError, OSError) as error:  # numba refuses versions of NumPy that it does not know
        _log.warning("numba is not used: %s", error)
        return None
    try:
        kernels.keep_compiled()
    except RuntimeError:
        _log.warning(
            "no folder to keep numba's kernels in: every process compiles them anew, "
            "unless NUMBA_CACHE_DIR names one that can be written to"
        )
    return kernels


def loaded_kernels() -> ModuleType:
    """The kernels, where they are known to work."""
    kernels = planar_kernels()
    assert kernels is not None
    return kernels


def multiplies(dtype: torch.dtype) -> bool:
    """Whether there are kernels for numbers of this type on this processor."""
    kernels = planar_kernels()
    if kernels is None:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and kernels.HAS_BF16)


def kernels_work(compare: Callable[[], tuple[Tensor, Tensor]]) -> bool:
    """Whether kernels compute on this processor what they should; if not, it is logged.

    Args:
        compare: gives a kernel's result and the expected one.
    """
    kernels = loaded_kernels()
    try:
        failure = _failure(compare)
        if failure is not None:  # what is kept may be damaged
            kernels.compile_anew()
            failure = _failure(compare)
    except OSError as error:  # it cannot be written
        failure = str(error)
    if failure is not None:
        _warn_once(f"numba is not used: {failure}")
    return failure is None


@cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)


def _failure(compare: Callable[[], tuple[Tensor, Tensor]]) -> str | None:
    try:
        found, expected = compare()
    except Exception as reason:  # compiling, and reading what is kept, fail in many ways
        return f"{type(reason).__name__}: {' '.join(str(reason).split())[:300]}"
    error = float((found.float() - expected.float()).abs().max() / expected.float().abs().max())
    if error <= TOLERANCE[expected.dtype]:
        return None
    return f"its results differ by {error:.1e} on this processor"


def words(x: Tensor) -> Any:
    """Its bits as numba takes them: float32, or pairs of bfloat16."""
    x = x.contiguous().view(-1)
    return (x if x.dtype == torch.float32 else x.view(torch.int32)).numpy()


def numbers(x: Tensor) -> Any:
    """Its numbers, one by one."""
    x = x.contiguous().view(-1)
    return (x if x.dtype == torch.float32 else x.view(torch.int16)).numpy()


def run_in_threads(
    kernel: Callable[..., None], rows: int, arrays: tuple[Any, ...], *others: Any
) -> None:
    """Runs a kernel on ranges of rows, as many as PyTorch has threads; it lets go of the GIL."""
    threads = min(torch.get_num_threads(), rows)
    if threads < 2:
        kernel(*arrays, 0, rows, *others)
        return
    (_, own), *parts = pairwise(rows * n // threads for n in range(threads + 1))
    submit = _threads(threads - 1).submit
    elsewhere = [submit(kernel, *arrays, first, last, *others) for first, last in parts]
    kernel(*arrays, 0, own, *others)
    for part in elsewhere:
        part.result()


@cache
def _threads(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, thread_name_prefix="planar")


if hasattr(os, "register_at_fork"):  # a forked process has none of these threads
    os.register_at_fork(after_in_child=_threads.cache_clear)

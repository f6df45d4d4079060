"""The start of a command: what has to come before PyTorch is imported, and its quick import."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

WAIT_POLICY = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""What a command sets for OpenMP, whose threads PyTorch computes with: GNU's runtime on Linux, and
LLVM's elsewhere (in ms).

By default they spin for long while they wait for each other or for work, and take the cores from
whatever else runs on the machine, from the very threads that they wait for, too. Not to spin at all
costs a fifth where nothing else runs. docs/performance.md has the measurements.
"""
WAIT_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""A user who has set one of these has chosen."""

MEMORY_POLICY = {
    "MALLOC_MMAP_THRESHOLD_": 2**25,
    "MALLOC_TRIM_THRESHOLD_": 2**27,
    "MALLOC_ARENA_MAX": 1,
}
"""What a command sets for glibc's malloc: blocks of less than 32 MiB come from one heap for all
threads, of which up to 128 MiB stay when they are freed.

By default the heap shrinks after each strip of a picture, and the system maps the same pages anew
for the next one: 6 % of CARN-PCSR's time. docs/performance.md has the measurements.
"""
MEMORY_SETTINGS = (*MEMORY_POLICY, "GLIBC_TUNABLES")
"""A user who has set one of these has chosen."""
_MALLOPT = {  # of malloc.h
    "MALLOC_MMAP_THRESHOLD_": -3,
    "MALLOC_TRIM_THRESHOLD_": -1,
    "MALLOC_ARENA_MAX": -8,
}


def tune_process(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets :data:`WAIT_POLICY` and :data:`MEMORY_POLICY` for this process and those it starts.

    What the user has chosen stays, and a process that has imported PyTorch already is left alone.
    """
    if "torch" in sys.modules:
        return
    if not any(name in environment for name in WAIT_SETTINGS):
        environment.update(WAIT_POLICY)
    if sys.platform == "linux" and not any(name in environment for name in MEMORY_SETTINGS):
        environment.update({name: str(value) for name, value in MEMORY_POLICY.items()})
        # glibc reads its variables before a program begins; other C libraries have no mallopt.
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for name, value in MEMORY_POLICY.items():
                mallopt(_MALLOPT[name], value)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Imports PyTorch inside the block without garbage collection, which costs a fifth of it.

    Imported modules are never garbage, so later collections leave out what exists by then. Where
    PyTorch is imported already, as in a notebook, nothing is changed.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()

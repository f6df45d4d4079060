"""The start of a command: what has to come before PyTorch is imported, and its quick import."""

from __future__ import annotations

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


def set_wait_policy(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets :data:`WAIT_POLICY`, unless the user has chosen or PyTorch is imported already."""
    if "torch" not in sys.modules and not any(name in environment for name in WAIT_SETTINGS):
        environment.update(WAIT_POLICY)


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

"""Quick imports at the start of a command."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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

"""A command's imports: no garbage collection in a fresh process, nothing changed in others."""

import gc
import subprocess
import sys

from pcsr_lightning.cli.startup import quick_imports

_FRESH = """
import gc
from pcsr_lightning.cli.startup import quick_imports
with quick_imports():
    assert not gc.isenabled()
    import torch
assert gc.isenabled() and gc.get_freeze_count() > 100_000
"""


def test_in_a_fresh_process() -> None:
    done = subprocess.run([sys.executable, "-c", _FRESH], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_where_torch_is_imported_already() -> None:
    import torch  # noqa: F401

    before = gc.get_freeze_count()
    with quick_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before

"""A command's start: threads that wait give way; no garbage collection during imports."""

import gc
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pcsr_lightning.cli.startup import MEMORY_SETTINGS, WAIT_SETTINGS, quick_imports, tune_process

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


_SET = """
import os, runpy, sys
seen = {}
class Finder:
    def find_spec(self, name, *_):
        if name == "torch" and not seen:
            seen.update(os.environ)
            print(seen.get("OMP_WAIT_POLICY"), seen.get("GOMP_SPINCOUNT"))
            os._exit(0)
sys.meta_path.insert(0, Finder())
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "words",
    [
        ["pcsr_lightning.upscale", "a.png", "b.png"],
        ["pcsr_lightning", "upscale", "a.png", "b.png"],
        ["pcsr_lightning.train"],
        ["pcsr_lightning", "train"],
        ["pcsr_lightning.evaluate"],
        ["pcsr_lightning.demo"],
        ["pcsr_lightning.figures"],
        ["pcsr_lightning.convert", "a.pth", "b"],
        ["pcsr_lightning.export", "a", "b.onnx"],
        ["pcsr_lightning.release", "a", "--train", "b"],
        ["pcsr_lightning.app"],
        ["pcsr_lightning.replay", "run"],
    ],
)
def test_threads_that_wait_give_way_in_every_command(words: list[str], tmp_path: Path) -> None:
    """It is set before PyTorch is imported, and a user's own setting counts."""
    unset = {k: v for k, v in os.environ.items() if k not in WAIT_SETTINGS}
    for own, said in (({}, "None 1000"), ({"OMP_WAIT_POLICY": "active"}, "active None")):
        command = [sys.executable, "-c", _SET, *words]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**unset, **own}, cwd=tmp_path
        )
        assert done.stdout.strip() == said, done.stderr


def test_a_process_that_has_imported_torch_is_left_alone() -> None:
    import torch  # noqa: F401

    environment: dict[str, str] = {}
    tune_process(environment)
    assert environment == {}


_FAULTS = """
import ctypes, resource, threading
from pcsr_lightning.cli.startup import tune_process
tune_process()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def strip():
    blocks = [libc.malloc(2**23) for _ in range(8)]
    for block in blocks:
        ctypes.memset(block, 1, 2**23)
    for block in blocks:
        libc.free(block)

thread = threading.Thread(target=strip)
thread.start()
thread.join()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
strip()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_command_keeps_the_memory_of_a_strip_for_the_next() -> None:
    """Unless the user has chosen: then the system maps its pages anew."""
    unset = {k: v for k, v in os.environ.items() if k not in MEMORY_SETTINGS}
    faults = []
    for own in ({}, {"MALLOC_TRIM_THRESHOLD_": "131072"}):
        command = [sys.executable, "-c", _FAULTS]
        done = subprocess.run(command, capture_output=True, text=True, env={**unset, **own})
        assert done.returncode == 0, done.stderr
        faults.append(int(done.stdout))
    assert faults[0] < 50 < faults[1]

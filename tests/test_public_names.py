"""``pcsr_lightning.upscale`` is a function, in any order of imports, and ``-m`` a command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import pcsr_lightning

_USE = """
import torch, warnings
from pcsr_lightning.networks import build_network, default_config
model = build_network(default_config("fsrcnn", 2))
picture = torch.rand(1, 3, 4, 5)
def use(upscale):
    assert upscale(model, picture, 2, k=0.1).image.shape == (1, 3, 8, 10)
"""

_ORDERS = {
    "module first": """
import pcsr_lightning.upscale
use(pcsr_lightning.upscale)
from pcsr_lightning import upscale
use(upscale)
import pcsr_lightning.cli.upscale
use(pcsr_lightning.upscale)
""",
    "function first": """
from pcsr_lightning import upscale
use(upscale)
before = upscale
import pcsr_lightning.upscale
use(before)
use(pcsr_lightning.upscale)
from pcsr_lightning import upscale
use(upscale)
""",
    "attribute first": """
import pcsr_lightning
use(pcsr_lightning.upscale)
import importlib
use(importlib.import_module("pcsr_lightning.upscale"))
use(pcsr_lightning.upscale)
from pcsr_lightning import *
use(upscale)
assert callable(load) and list_models() == pcsr_lightning.list_models()
""",
}


# Each order in a fork of one process, which has imported what is not ours.
_FORKS = """
import json, os, sys, traceback
import numpy, pyvips, torch
for code in json.load(sys.stdin):
    assert "pcsr_lightning" not in sys.modules
    child = os.fork()
    if not child:
        try:
            exec(code, {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def python(code: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        input=given,
        capture_output=True,
        text=True,
    )


def test_any_order_of_imports() -> None:
    done = python(_FORKS, json.dumps([_USE + order for order in _ORDERS.values()]))
    assert done.returncode == 0, done.stderr
    ends = dict(zip(_ORDERS, map(int, done.stdout.split()), strict=True))
    assert ends == dict.fromkeys(_ORDERS, 0), done.stderr


def test_importing_the_package_is_cheap() -> None:
    done = python(
        "import sys, pcsr_lightning, pcsr_lightning.cli.main; pcsr_lightning.__version__;"
        "print([m for m in ('torch', 'numpy', 'lightning', 'hydra', 'pyvips') if m in sys.modules])"
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
    done = python(
        "import sys, pcsr_lightning.training, pcsr_lightning.batch.command;"
        "print('lightning' in sys.modules)"
    )
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_the_command_prints_no_warning() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pcsr_lightning.upscale", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert "examples:" in done.stdout


def test_names() -> None:
    assert set(pcsr_lightning.__all__) <= set(dir(pcsr_lightning))
    assert pcsr_lightning.__version__
    with pytest.raises(AttributeError, match="no attribute 'downscale'"):
        _ = pcsr_lightning.downscale

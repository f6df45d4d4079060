"""The command holds no result: its peak memory beside that of a small picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pcsr_lightning
from pcsr_lightning import pictures
from pcsr_lightning.batch import one_picture
from pcsr_lightning.batch.one_picture import Settings, enlarge_file
from pcsr_lightning.batch.outputs import Job

SCRIPT = """
import resource, sys
from pcsr_lightning.upscale import main
small, large, out, suffix = sys.argv[1:]
more = ["--only-class", "1", "--threads", "1", "--quiet", "--max-memory", "40M", "--scale", "8"]
assert main([small, out + "/small" + suffix, *more]) == 0
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert main([large, out + "/large" + suffix, *more]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
def test_memory_does_not_follow_the_result(tmp_path: Path) -> None:
    """As wide, 10 times as high: 23 MB of pixels more, which a held result takes at least twice.

    The peak may rise by what the input takes: 40 bytes for each of its pixels, 5 MB, and some.
    """
    paths = []
    for height in (30, 300):
        values = np.random.default_rng(0).integers(0, 256, (height, 400, 3), np.uint8)
        paths.append(tmp_path / f"{height}.png")
        Image.fromarray(values).save(paths[-1])
    command = [sys.executable, "-c", SCRIPT, *map(str, paths), str(tmp_path), ".jpg"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "large.jpg").size == (3200, 2400)
    assert int(done.stdout) < 25_000, "KiB"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("grey", [False, True])
def test_streamed_and_whole_results_are_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, bits: int, grey: bool
) -> None:
    model = pcsr_lightning.load("fsrcnn-pcsr-x4")
    generator = torch.Generator().manual_seed(bits)
    rgb = torch.rand(1 if grey else 3, 40, 50, generator=generator).expand(3, 40, 50)
    source, target = tmp_path / "in.png", tmp_path / f"out{suffix}"
    picture = pictures.Picture(rgb, bits=bits, grey=grey, resolution=(10, 11))
    pictures.write(picture, source)
    for settings in (Settings(4), Settings(2.5, adaptive=True), Settings(3, budget=0.6)):
        found = []
        for limit in (1, 2**60):
            monkeypatch.setattr(one_picture, "STREAM_PIXELS", limit)
            enlarge_file(model, Job(source, target, None, None), settings)
            found.append(target.read_bytes())
        assert found[0] == found[1], settings

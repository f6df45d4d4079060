"""What the command writes row by row is what would be written at once, in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.small import compact_state

import pcsr_lightning
from pcsr_lightning import images, inference
from pcsr_lightning.batch.models import RunModels
from pcsr_lightning.batch.one_picture import UpscaleOptions, upscale_file
from pcsr_lightning.batch.outputs import Job
from pcsr_lightning.images import Metadata, Picture
from pcsr_lightning.inference import Execution
from pcsr_lightning.networks import PCSR
from pcsr_lightning.routing import RoutingConfig, scores

WIDTH, HEIGHTS = 60, (150, 400)
LIMIT = 11_000
"""KiB. As wide and 250 rows higher is 11,000 KiB more of 8-bit colour under a scale of 16, and
15,000 of probabilities. What grows is a little for each row, however wide: 2,500 KiB here."""
CASES = {
    "plain": ["--fixed-class", "1"],
    "alpha": ["--fixed-class", "1"],
    "class map": ["--fixed-class", "1", "--class-map"],
    "adaptive": ["--adaptive"],
    "budget": ["--budget", "40%"],
    "compact": ["--model", "compact.pth"],
}
SCRIPT = """
import json, os, resource, sys
from pcsr_lightning.routing import scores
from pcsr_lightning.cli.upscale import main
import pcsr_lightning, torch
folder, cases = sys.argv[1], json.loads(sys.argv[2])
scores.SCORE_BYTES = 0  # as for larger pictures
torch.set_num_threads(1)
model = pcsr_lightning.load("fsrcnn-pcsr-x4")
pcsr_lightning.upscale(model, torch.rand(1, 3, 8, 8), 8, adaptive=True)
common = ["--threads", "1", "--quiet", "--max-memory", "6M", "--scale", "16"]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def run(name, height):
    source = f"{folder}/{'alpha' if name == 'alpha' else 'plain'}{height}.png"
    words = list(cases[name])
    if words[-1:] == ["--class-map"]:
        words.append(f"{folder}/{name} classes {height}.png")
    suffix = ".jpg" if name == "plain" else ".png"
    assert main([source, f"{folder}/{name} {height}{suffix}", *common, *words]) == 0
# Each in a process of its own, but all with the same imports.
for name in cases:
    if os.fork() == 0:
        run(name, 150)
        before = peak()
        run(name, 400)
        print(json.dumps([name, peak() - before]), flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(f"{name} failed")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
@pytest.mark.slow
def test_memory_does_not_follow_the_result(tmp_path: Path) -> None:
    for height, kind in product(HEIGHTS, ("plain", "alpha")):
        shape = (height, WIDTH, 4 if kind == "alpha" else 3)
        values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        Image.fromarray(values).save(tmp_path / f"{kind}{height}.png", compress_level=1)
    torch.save(compact_state(nf=8, blocks=2, scale=16), tmp_path / "compact.pth")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), json.dumps(CASES)]
    # What is given back goes back to the system, or the peak would tell of holes in the heap.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "2"}
    growth = dict.fromkeys(CASES, sys.maxsize)
    for _ in range(3):  # holes in the heap differ from run to run, and only ever add
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=500, env=env, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        found = dict(json.loads(line) for line in done.stdout.splitlines())
        growth = {name: min(growth[name], found[name]) for name in CASES}
        if max(growth.values()) < LIMIT:
            break
    with Image.open(tmp_path / "alpha 400.png") as image:
        assert (image.size, image.mode) == ((960, 6400), "RGBA")
    assert max(growth.values()) < LIMIT, growth


SETTINGS = [
    UpscaleOptions(4),
    UpscaleOptions(2.5, routing=RoutingConfig("adaptive")),
    UpscaleOptions(3, routing=RoutingConfig(budget=0.6, refine=True)),
]
SUFFIXES = [".png", ".tif", ".jpg", ".bmp", ".webp", ".avif"]
ALPHAS = ["none", "opaque", "half", "holes"]


def alpha_of(kind: str, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor | None:
    values = torch.rand(1, *size, generator=generator)
    if kind == "holes":  # large enough that colour has to come from afar
        values = (values - 0.3).clamp(0)
        values[:, 3:25, 4:30] = 0
    return {"none": None, "opaque": torch.ones_like(values)}.get(kind, values)


def written_at_once(
    model: PCSR, source: Path, target: Path, classes: Path, settings: UpscaleOptions
) -> None:
    """The same by way of whole pictures in memory."""
    picture = images.read(source)
    size = settings.size_of((picture.rgb.shape[1], picture.rgb.shape[2]))
    routing, bits = settings.routing, picture.bits
    if picture.alpha is None:
        result = inference.upscale(model, picture.rgb[None], size=size, routing=routing, bits=bits)
        image, assignment, alpha = result.image[0], result.assignment[0], None
    else:
        parts: list[tuple[torch.Tensor, torch.Tensor]] = []
        colour = images.ColourRows(picture)
        put = lambda *part: parts.append(part)  # noqa: E731
        inference.upscale_rows(model, colour, size, put, routing, Execution(), bits)
        image, assignment = torch.cat([x for x, _ in parts], 1), torch.cat([c for _, c in parts])
        with inference.upscaled_alpha(
            model, picture.alpha, size, routing, Execution(), bits
        ) as rows:
            alpha = rows.take(size[0])
    images.write(picture.upscaled(image, alpha), target)
    image = image.float() / torch.iinfo(image.dtype).max
    images.write(Picture(inference.class_map(image, assignment, 2)), classes)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bits", [8, 16])
def test_streamed_and_whole_results_are_the_same_files(
    tmp_path: Path, suffix: str, bits: int
) -> None:
    model = pcsr_lightning.load("fsrcnn-pcsr-x4")
    assert isinstance(model, PCSR)
    generator = torch.Generator().manual_seed(bits)
    cases = list(product((False, True), ALPHAS))
    shift = SUFFIXES.index(suffix) + bits // 8
    for i, (grey, kind) in enumerate(cases):
        rgb = torch.rand(1 if grey else 3, 31, 40, generator=generator).expand(3, 31, 40)
        alpha = alpha_of(kind, (31, 40), generator)
        source, target = tmp_path / "in.png", tmp_path / f"out{suffix}"
        images.write(
            Picture(rgb, alpha, bits, grey, metadata=Metadata(resolution=(10, 11))), source
        )
        settings, found = SETTINGS[(i + shift) % 3], []
        for way in ("rows", "whole"):
            classes = tmp_path / "classes.png"
            if way == "rows":
                upscale_file(RunModels({"small": model}), Job(source, target, classes), settings)
            else:
                written_at_once(model, source, target, classes, settings)
            found.append((target.read_bytes(), classes.read_bytes()))
        assert found[0] == found[1], (grey, kind, settings)


def test_the_result_has_its_name_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is, all of the job is done."""
    model = pcsr_lightning.load("fsrcnn-pcsr-x4")
    source, target, classes = (tmp_path / name for name in ("in.png", "out.png", "classes.png"))
    images.write(Picture(torch.rand(3, 9, 8)), source)
    replaced: list[str] = []
    replace = Path.replace

    def noted(self: Path, other: Path) -> Path:
        replaced.append(other.name)
        return replace(self, other)

    monkeypatch.setattr(Path, "replace", noted)
    upscale_file(RunModels({"small": model}), Job(source, target, classes), UpscaleOptions(4))
    assert replaced == ["classes.png", "out.png"]


def test_large_pictures_are_decided_by_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly the same pixels, and never more than the budget."""
    model = pcsr_lightning.load("fsrcnn-pcsr-x4")
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    generator = torch.Generator().manual_seed(0)
    images.write(Picture(torch.rand(3, 40, 50, generator=generator)), source)
    for routing in (RoutingConfig("adaptive"), RoutingConfig(budget=0.6)):
        settings = UpscaleOptions(4, routing=routing)
        exact = upscale_file(RunModels({"small": model}), Job(source, target), settings)
        with monkeypatch.context() as patch:
            patch.setattr(scores, "SCORE_BYTES", 0)
            counted = upscale_file(RunModels({"small": model}), Job(source, target), settings)
        assert counted.shares[0] == pytest.approx(exact.shares[0], abs=1e-3)
        assert 0.01 < counted.shares[0] < 0.99
        if routing.mode == "budget":
            all_heavy = UpscaleOptions(4, routing=RoutingConfig(fixed_class=0))
            heavy = upscale_file(RunModels({"small": model}), Job(source, target), all_heavy)
            assert 0.599 * heavy.gmacs < counted.gmacs <= 0.6 * heavy.gmacs

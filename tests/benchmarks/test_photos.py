"""The table of noisy and compressed pictures."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pcsr_lightning.images import Picture, write
from pcsr_lightning.networks import build_network, default_config
from pcsr_lightning.weights import save

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_strength_has_a_row_and_damages_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    photos = importlib.import_module("photos")
    torch.manual_seed(0)
    network = build_network({**default_config("fsrcnn", num_classes=2), "denoise": True})
    model = save(network, tmp_path / "photo")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    smooth = torch.linspace(0.4, 0.55, 64).expand(3, 64, 64)
    write(Picture(smooth), pictures / "smooth.png")
    out = tmp_path / "out.json"
    words = ["--clean", "fsrcnn-pcsr-x4", "--photo", model, "--scales", 4, "--json", out]
    words += ["--damages", "clean", "noise 8", "q40", "--strengths", 0, 1, "--crop", 48]
    assert photos.main([str(w) for w in (pictures, *words)]) == 0
    found = {(row["model"], row["pictures"]): row for row in json.loads(out.read_text())}
    assert len(found) == 4 * 3  # bicubic, the clean model, two strengths
    assert found["bicubic", "clean"]["psnr"] > found["bicubic", "noise 8"]["psnr"] + 5
    for row in found.values():
        assert row["model"] == "bicubic" or 0 <= row["flat"] <= 1
    first = capsys.readouterr()
    assert "| photo, denoise 0 |" in first.out
    assert photos.main([str(w) for w in (pictures, *words)]) == 0
    again = capsys.readouterr()
    assert (again.out, again.err) == (first.out, "")  # nothing is measured twice
    noise = photos.noisy(torch.full((1, 3, 64, 64), 0.5), 8, np.random.default_rng(0)) - 0.5
    assert float(noise.std() * 255) == pytest.approx(8, rel=0.05)

"""A benchmark's numbers against the same by hand; bicubic against the tables."""

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcsr_lightning.errors import ConfigError, DataError, PictureError
from pcsr_lightning.evaluation import benchmark
from pcsr_lightning.images import bicubic
from pcsr_lightning.inference import RoutingConfig, upscale
from pcsr_lightning.networks import PCSR, Original


def psnr_by_hand(sr: torch.Tensor, hr: torch.Tensor) -> float:
    a, b = ((x[0].double().numpy() * 255).round().clip(0, 255)[:, 4:-4, 4:-4] for x in (sr, hr))
    return 10 * math.log10(255**2 / ((a - b) ** 2).mean())


def test_every_number_by_hand(pcsr: PCSR, folder: Path) -> None:
    result = benchmark(pcsr, folder, 4)
    assert [s.name for s in result.images] == ["b.png", "more/a.jpg"]
    assert not result.skipped
    for score in result.images:
        with Image.open(folder / score.name) as file:
            whole = torch.from_numpy(np.asarray(file.convert("RGB")) / 255.0)
        H, W = (n // 4 * 4 for n in whole.shape[:2])
        hr = whole.permute(2, 0, 1)[None, :, :H, :W].float()
        lr = bicubic(hr, (H // 4, W // 4))
        sr = upscale(pcsr, lr)
        assert score.size == (H, W)
        assert abs(score.psnr - psnr_by_hand(sr.image, hr)) < 1e-3
        assert abs(score.bicubic.psnr - psnr_by_hand(bicubic(lr, (H, W)), hr)) < 1e-3
        heavy = float((sr.assignment == 0).double().mean())
        assert 0 < heavy < 1
        assert score.share == pytest.approx((heavy, 1 - heavy), abs=1e-9)
        # FSRCNN-PCSR's multiply-adds: backbone (half of one for each of its PReLUs' 120 elements),
        # classifier, heavy and light; counted twice
        per_query = 104 + heavy * 13282 + (1 - heavy) * 750
        published = 2e-9 * (H // 4 * (W // 4) * (9936 + 60) + H * W * per_query)
        assert score.gflops_published == pytest.approx(published, rel=1e-6)
        assert 0.3 * published < score.gmacs < 0.5 * published  # hoisting saves a fifth or more
        assert 0 < score.seconds < 10
    mean, images = result.mean, result.images
    for name in (
        "psnr",
        "psnr_y",
        "ssim",
        "gmacs",
        "gflops_published",
        "seconds",
    ):
        both = [getattr(s, name) for s in images]
        assert both[0] != both[1]
        assert getattr(mean, name) == pytest.approx(sum(both) / 2)
    assert mean.bicubic.psnr == pytest.approx(sum(s.bicubic.psnr for s in images) / 2)
    assert mean.share == pytest.approx(
        tuple((images[0].share[j] + images[1].share[j]) / 2 for j in (0, 1))
    )


def test_routing_is_obeyed(pcsr: PCSR, folder: Path) -> None:
    shares = {
        mode: benchmark(pcsr, folder, 4, routing).mean.share
        for mode, routing in {
            "heavy": RoutingConfig(fixed_class=0),
            "light": RoutingConfig(fixed_class=1),
            "k": RoutingConfig(k=0.0),
            "heavier": RoutingConfig(k=-1.0),
            "adaptive": RoutingConfig("adaptive"),
        }.items()
    }
    assert shares["heavy"] == (1.0, 0.0)
    assert shares["light"] == (0.0, 1.0)
    assert shares["heavier"][0] > shares["k"][0] > 0
    assert shares["adaptive"] != shares["k"]


def test_other_scales_and_the_tables_protocol(pcsr: PCSR, tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    Image.fromarray(draw.integers(0, 256, (150, 135, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    assert benchmark(pcsr, tmp_path, 2.5).images[0].size == (150, 135)
    assert benchmark(pcsr, tmp_path, (4, 3.7)).images[0].size == (148, 133)
    assert benchmark(pcsr, tmp_path, 4, protocol="published").images[0].size == (128, 128)


def test_an_original_model(original: Original, folder: Path) -> None:
    result = benchmark(original, folder)
    score = result.images[1]
    assert score.share == (1.0,)
    # As published, the transposed convolution counted at its output's size, and in truth; half a
    # multiply-add for each of the PReLUs' 136 elements.
    assert score.gflops_published == pytest.approx(2e-9 * 12 * 20 * (228456 + 68), rel=1e-6)
    assert score.gmacs == pytest.approx(1e-9 * 12 * 20 * (24336 + 68), rel=1e-6)
    with pytest.raises(ConfigError, match=r"scale=2: .*original fsrcnn.*scale 4"):
        benchmark(original, folder, 2)
    with pytest.raises(ConfigError, match=r"protocol=patches needs an integer scale"):
        benchmark(original, folder, 2.5, protocol="patches")
    with pytest.raises(ConfigError, match=r"routing.fixed_class=1"):
        benchmark(original, folder, routing=RoutingConfig(fixed_class=1))


def test_a_class_there_is_not(pcsr: PCSR, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"routing.fixed_class=2: .*classes 0 .* to 1"):
        benchmark(pcsr, folder, routing=RoutingConfig(fixed_class=2))


def test_bad_pictures_are_named_counted_and_left_out(
    pcsr: PCSR, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = benchmark(pcsr, folder).mean
    (folder / "aa_broken.png").write_bytes((folder / "b.png").read_bytes()[:200])
    Image.new("RGB", (6, 60)).save(folder / "thin.png")
    with caplog.at_level(logging.WARNING):
        result = benchmark(pcsr, folder)
    assert [s.name for s in result.skipped] == ["aa_broken.png", "thin.png"]
    assert "too few" in result.skipped[1].reason
    for text in ("aa_broken.png", "thin.png", "2 of 4"):
        assert text in caplog.text
    assert result.mean.psnr == good.psnr


def test_nothing_to_measure(pcsr: PCSR, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="no such folder"):
        benchmark(pcsr, tmp_path / "nowhere")
    with pytest.raises(PictureError, match="no picture"):
        benchmark(pcsr, tmp_path)
    (tmp_path / "x.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of its 1 pictures.*x\.png"):
        benchmark(pcsr, tmp_path)


def test_pictures_are_handed_over(pcsr: PCSR, folder: Path) -> None:
    got = []
    benchmark(pcsr, folder, on_picture=lambda score, result: got.append((score, result)))
    for score, result in got:
        assert tuple(result.image.shape) == (1, 3, *score.size)
    assert len(got) == 2

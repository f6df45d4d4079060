"""PSNR and SSIM against numpy by hand and against scikit-image; what LPIPS is handed."""

import math
from collections.abc import Callable
from importlib import import_module

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.utils._python_dispatch import TorchDispatchMode

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation import build_lpips, psnr, psnr_y, ssim, ssim_y
from pcsr_lightning.evaluation.measurement import Quality

# by this way, since the package has a function of the same name
MODULE = import_module("pcsr_lightning.evaluation.metrics")


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(0)
    hr = draw.integers(0, 256, (3, 37, 52)) / 255
    sr = hr + draw.normal(0, 0.04, hr.shape)  # leaves [0, 1] in places
    return torch.from_numpy(sr)[None].float(), torch.from_numpy(hr)[None].float()


def test_by_hand_and_by_scikit_image() -> None:
    sr, hr = pictures()
    a, b = (np.clip(np.round(x[0].double().numpy() * 255), 0, 255)[:, 4:-4, 4:-4] for x in (sr, hr))
    by_hand = 10 * math.log10(255**2 / np.mean((a - b) ** 2))
    assert 27 < by_hand < 29
    assert abs(psnr(sr, hr, border=4) - by_hand) < 1e-4
    by_skimage = peak_signal_noise_ratio(b.astype(np.uint8), a.astype(np.uint8))
    assert abs(psnr(sr, hr, border=4) - by_skimage) < 1e-4


def test_errors_in_the_border_do_not_count() -> None:
    hr = torch.rand(1, 3, 20, 20)
    sr = hr.clone()
    sr[..., 3, :] += 0.5
    assert math.isinf(psnr(sr, hr, border=4))
    assert math.isfinite(psnr(sr, hr, border=3))


def test_both_pictures_are_rounded() -> None:
    hr = torch.full((1, 3, 20, 20), 100 / 255)
    assert math.isinf(psnr(hr + 0.4 / 255, hr, border=0))
    assert abs(psnr(hr + 0.6 / 255, hr, border=0) - 20 * math.log10(255)) < 1e-4


def as_bytes(picture: torch.Tensor, border: int) -> np.ndarray:
    """(H, W, 3), rounded and shaved."""
    whole = np.clip(np.round(picture[0].double().numpy() * 255), 0, 255).astype(np.uint8)
    return whole[:, border : whole.shape[1] - border, border : whole.shape[2] - border].transpose(
        1, 2, 0
    )


def test_luma_as_scikit_image_has_it() -> None:
    sr, hr = pictures()
    y = [rgb2ycbcr(as_bytes(x, 4))[..., 0] for x in (sr, hr)]
    expected = 10 * math.log10(255**2 / np.mean((y[0] - y[1]) ** 2))
    assert abs(psnr_y(sr, hr, border=4) - expected) < 1e-3
    assert abs(psnr_y(sr, hr, border=4) - psnr(sr, hr, border=4)) > 1


@pytest.mark.parametrize("border", [0, 4])
def test_ssim_as_scikit_image_has_it(border: int) -> None:
    sr, hr = pictures()
    a, b = (as_bytes(x, border).astype(float) for x in (sr, hr))
    expected = structural_similarity(
        a,
        b,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert 0.5 < expected < 0.999
    assert abs(ssim(sr, hr, border) - expected) < 1e-4
    assert ssim(hr, hr, border) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("border", [0, 4])
def test_ssim_of_luma_as_scikit_image_has_it(border: int) -> None:
    sr, hr = pictures()
    a, b = (rgb2ycbcr(as_bytes(x, border))[..., 0] for x in (sr, hr))
    expected = structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert 0.5 < expected < 0.999
    assert abs(ssim_y(sr, hr, border) - expected) < 2e-5
    assert abs(ssim_y(sr, hr, border) - ssim(sr, hr, border)) > 2e-4
    assert ssim_y(hr, hr, border) == pytest.approx(1, abs=1e-6)
    assert math.isnan(ssim_y(hr[..., :18, :], hr[..., :18, :], border=4))


@pytest.mark.parametrize("measure", [psnr, psnr_y, ssim, ssim_y])
def test_in_bands_and_of_bytes(
    measure: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large picture a few rows are compared at a time; bytes are taken as they are."""
    sr, hr = pictures()
    whole = measure(sr, hr, border=4)
    as_uint8 = [(x.clamp(0, 1) * 255).round().byte() for x in (sr, hr)]
    assert measure(*as_uint8, border=4) == pytest.approx(whole, abs=1e-6)
    for rows in (1, 7, 18, 19):  # 29 rows are left, of which SSIM's window fits 19 times
        monkeypatch.setattr(MODULE, "BAND_PIXELS", 44 * rows)
        assert measure(sr, hr, border=4) == pytest.approx(whole, abs=1e-6)


class Largest(TorchDispatchMode):
    """The most values of a floating-point tensor that is made within."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.is_floating_point():
            self.values = max(self.values, made.numel())
        return made


def test_no_floating_point_picture_as_large_as_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8K that would be 380 MiB each."""
    monkeypatch.setattr(MODULE, "BAND_PIXELS", 8 * 64)
    sr, hr = torch.randint(0, 256, (2, 1, 3, 512, 64), dtype=torch.uint8)
    with Largest() as largest:
        found = Quality.of(sr, hr, border=4)
    assert 0 < largest.values < sr.numel() / 3
    assert found.metrics == {}


def test_too_small_for_the_window() -> None:
    small = torch.rand(1, 3, 18, 40)
    assert math.isnan(ssim(small, small, border=4))
    assert ssim(small, small, border=3) == pytest.approx(1)


def test_lpips_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[lpips\]'"):
        build_lpips(torch.device("cpu"))


def test_what_lpips_is_handed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for torchmetrics' own, whose weights are not to be had everywhere."""
    seen = []

    class Stand(torch.nn.Module):
        def __init__(self, net: str, normalize: bool) -> None:
            super().__init__()
            assert (net, normalize) == ("alex", True)

        def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
            seen.append((sr, hr))
            return (sr - hr).abs().mean()

        def reset(self) -> None:
            pass

    monkeypatch.setattr(MODULE, "find_spec", lambda name: object())
    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", Stand)
    lpips = build_lpips(torch.device("cpu"))
    hr = torch.rand(1, 3, 50, 60)
    value = lpips(hr + 0.3, hr, 4)
    [(a, b)] = seen
    assert a.shape == b.shape == (1, 3, 42, 52)
    assert a.max() == 1
    torch.testing.assert_close(b * 255, (hr[..., 4:-4, 4:-4] * 255).round())
    assert value > 0.1
    assert math.isnan(lpips(hr[..., :39, :], hr[..., :39, :], 4))


def test_lpips_without_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(MODULE, "find_spec", lambda name: object())
    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", offline)
    with pytest.raises(ConfigError, match=r"cannot be fetched \(no route to host\)"):
        build_lpips(torch.device("cpu"))

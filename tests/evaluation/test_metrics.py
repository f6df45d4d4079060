"""PSNR against numpy by hand and against scikit-image."""

import math

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio

from pcsr_lightning.evaluation import psnr


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

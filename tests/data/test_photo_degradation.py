"""Blur, scaling, noise and JPEG: what each does, that it can be repeated, and its settings."""

import re
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from pcsr_lightning import conf_dir
from pcsr_lightning.data import BicubicDegradation, Box, PhotoDegradation
from pcsr_lightning.data.sample_pictures import SAMPLE_FOLDER
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.images import list_pictures, read

NOTHING: dict[str, Any] = {"clean": 0, "blur": 0, "noise": 0, "jpeg": 0, "kernels": {"bicubic": 1}}


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return read(list_pictures(SAMPLE_FOLDER)[0]).rgb[None, :, :360, :360].contiguous()


def degraded(
    x: Tensor, size: tuple[int, int], seed: int = 0, box: Box | None = None, **settings: Any
) -> Tensor:
    box = Box(0, 0, *x.shape[-2:]) if box is None else box
    generator = torch.Generator().manual_seed(seed)
    return PhotoDegradation(**{**NOTHING, **settings})(x, box, size, generator)


def bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    return BicubicDegradation()(x, Box(0, 0, *x.shape[-2:]), size, torch.Generator())


def test_clean_crops_are_bicubic(picture: Tensor) -> None:
    settings = {"clean": 1, "blur": 1, "noise": 1, "jpeg": 1}
    found = degraded(picture, (90, 90), **settings)
    torch.testing.assert_close(found, bicubic(picture, (90, 90)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 2.5, 4])
@pytest.mark.parametrize("kernel", ["bicubic", "bilinear", "area"])
@pytest.mark.parametrize("seed", range(3))
def test_a_crop_is_cut_from_the_degraded_whole(
    picture: Tensor, kernel: str, scale: float, seed: int
) -> None:
    settings: dict[str, Any] = {"blur": 1, "blur_sigma": [0.4, 0.8], "kernels": {kernel: 1}}
    lr = round(360 / scale)
    whole = degraded(picture, (lr, lr), seed, **settings)
    margin = int(PhotoDegradation(**settings).margin * scale)
    top, left = (int(n * scale) for n in (40, 44))
    side = int(20 * scale)
    window = picture[:, :, top - margin : top + side + margin, left - margin : left + side + margin]
    crop = degraded(window, (20, 20), seed, Box(margin, margin, side, side), **settings)
    torch.testing.assert_close(crop, whole[:, :, 40:60, 44:64], rtol=0, atol=1e-5)


def test_area_is_the_mean_of_the_pixels_it_covers(picture: Tensor) -> None:
    expected = torch.nn.functional.avg_pool2d(picture, 4)
    found = degraded(picture, (90, 90), kernels={"area": 1})
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_blur_is_a_gaussian_of_the_drawn_width() -> None:
    x = torch.zeros(1, 3, 128, 128)
    x[:, :, 64, 64] = 1
    found = degraded(x, (128, 128), blur=1, blur_sigma=[1.5, 1.5], anisotropic=0)
    at = torch.arange(-6.0, 7.0)
    one = torch.exp(-at.square() / (2 * 1.5**2)) / (1.5 * (2 * torch.pi) ** 0.5)
    expected = one[:, None] * one
    torch.testing.assert_close(found[0, 1, 58:71, 58:71], expected, rtol=0, atol=1e-4)
    draws = [
        degraded(x, (128, 128), seed, blur=1, blur_sigma=[0.5, 2.5], anisotropic=1)[0, 0]
        for seed in range(4)
    ]
    for draw in draws:
        assert float(draw.sum()) == pytest.approx(1, abs=1e-3)
        assert not torch.allclose(draw, draw.T, atol=1e-3)


def test_noise_has_the_strength_that_was_asked_for() -> None:
    x = torch.cat([torch.full((1, 3, 128, 64), v) for v in (0.25, 0.64)], dim=3)
    constant = degraded(x, (128, 128), noise=1, noise_constant=[8, 8], noise_signal=[0, 0])
    assert float((constant - x).std()) * 255 == pytest.approx(8, rel=0.03)
    found = degraded(x, (128, 128), noise=1, noise_constant=[0, 0], noise_signal=[20, 20])
    for half, expected in ((slice(0, 64), 10), (slice(64, 128), 16)):
        assert float((found - x)[..., half].std()) * 255 == pytest.approx(expected, rel=0.03)
    grey = degraded(
        x, (128, 128), noise=1, noise_constant=[8, 8], noise_signal=[0, 0], grey_noise=1
    )
    assert torch.equal(grey[:, 0], grey[:, 2])
    assert not torch.equal(constant[:, 0], constant[:, 2])


def test_jpeg_once_and_twice(picture: Tensor) -> None:
    clean = bicubic(picture, (90, 90))

    def error(**settings: Any) -> float:
        found = degraded(picture, (90, 90), jpeg=1, **settings)
        assert torch.equal(found * 255, (found * 255).round())
        return float((found - clean).square().mean())

    errors = [error(quality=[q, q], twice=0) for q in (95, 75, 40)]
    assert errors == sorted(errors)
    assert error(quality=[40, 40], twice=1) > errors[-1]


def test_the_clean_pixels_are_those_before_noise_and_compression(picture: Tensor) -> None:
    settings = {"blur": 1, "noise": 1, "jpeg": 1, "kernels": {"area": 1}}
    box, size = Box(0, 0, 360, 360), (90, 90)
    many = PhotoDegradation(**{**NOTHING, **settings})
    lr, clean = many.pair(picture, box, size, torch.Generator().manual_seed(1))
    without = degraded(picture, size, 1, **{**settings, "noise": 0, "jpeg": 0})
    assert clean is not None
    assert torch.equal(clean, without)
    assert float((lr - clean).abs().max()) > 0.01
    assert BicubicDegradation().pair(picture, box, size, torch.Generator()).clean_lr_B3hw is None


def test_draws_depend_on_the_generator_alone(picture: Tensor) -> None:
    x, box = picture.expand(6, -1, -1, -1), Box(100, 96, 128, 128)
    photo = PhotoDegradation()

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed + 7)  # the global generator is not asked
        return photo(x, box, (32, 32), torch.Generator().manual_seed(seed % 2))

    assert torch.equal(drawn(0), drawn(2))
    assert not torch.equal(drawn(0), drawn(1))
    assert len({crop.sum().item() for crop in drawn(0)}) > 3  # each crop has its own


def test_the_config_has_the_class_s_defaults() -> None:
    with initialize_config_dir(str(conf_dir()), version_base=None):
        cfg = compose("train", ["data=folder", "data.root=x", "data/degradation=photo"])
        other = compose(
            "train", ["data=folder", "data.root=x", "data.degradation._target_=builtins.dict"]
        )
    assert vars(instantiate(cfg.data.degradation)) == vars(PhotoDegradation())
    assert instantiate(other.data.degradation) == {}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"clean": 1.5}, "clean=1.5: must be a share in [0, 1]"),
        ({"twice": -0.1}, "twice=-0.1: must be a share in [0, 1]"),
        ({"quality": [0, 95]}, "quality=[0, 95]: must be [lowest, highest], both from 1 to 100"),
        ({"quality": [90, 30]}, "quality=[90, 30]: must be [lowest, highest]"),
        ({"noise_constant": 8}, "noise_constant=8: must be [lowest, highest]"),
        ({"noise_signal": [-1, 3]}, "noise_signal=[-1, 3]: must be [lowest, highest]"),
        (
            {"blur_sigma": [0.2, 9]},
            "blur_sigma=[0.2, 9]: must be [lowest, highest], both",
        ),
        ({"kernels": {"lanczos": 1}}, "kernels={'lanczos': 1}: must give weights"),
        ({"kernels": {}}, "kernels={}: must give weights of at least 0, not all 0"),
    ],
)
def test_settings_out_of_range(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.degradation\.{re.escape(said)}") as error:
        PhotoDegradation(**setting)
    assert "\n" not in str(error.value)

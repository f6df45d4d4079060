"""What a picture went through is estimated: against pictures of which it is known."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch import Tensor

from pcsr_lightning.data.sample_pictures import SAMPLE_FOLDER
from pcsr_lightning.images import (
    Picture,
    PictureCondition,
    bicubic,
    decode,
    picture_condition,
    read_rgb8,
)

SAMPLES = sorted([*SAMPLE_FOLDER.glob("*/*.png"), *SAMPLE_FOLDER.glob("*/*.jpg")])


def shrunk(index: int, times: int = 1) -> Tensor:
    """A shipped photograph, so small that nothing is left of its own noise and compression."""
    rgb = read_rgb8(SAMPLES[index]).float() / 255
    size = (rgb.shape[1] // times, rgb.shape[2] // times)
    return bicubic(rgb[None], size)[0].clamp(0, 1).mul(255).round().div(255)


def noisy(rgb: Tensor, levels: float, grey: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (1, *rgb.shape[1:]) if grey else rgb.shape
    white = torch.randn(shape, generator=generator).expand(3, -1, -1)
    return (255 * rgb + levels * white).round().clamp(0, 255) / 255


def encoded(rgb: Tensor, format: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    pixels = rgb.permute(1, 2, 0).mul(255).round().byte().numpy()
    Image.fromarray(pixels).convert(mode).save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("quality", [1, 2, 10, 30, 49, 50, 51, 72, 85, 93, 95, 99, 100])
def test_the_quality_that_a_jpeg_was_saved_with(quality: int, mode: str) -> None:
    picture = decode(encoded(torch.rand(3, 17, 20), mode=mode, quality=quality))
    assert picture_condition(picture).quality == quality


def test_tables_of_other_programs_come_close() -> None:
    """Each entry off by up to a tenth, as cameras' own tables are."""
    image = Image.new("RGB", (16, 16))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    draw = np.random.default_rng(0)
    tables = {
        n: [max(1, round(v * draw.uniform(0.9, 1.1))) for v in table]
        for n, table in Image.open(file).quantization.items()
    }
    file = io.BytesIO()
    image.save(file, "JPEG", qtables=tables)
    quality = decode(file.getvalue()).metadata.jpeg_quality
    assert quality is not None
    assert abs(quality - 80) <= 2
    assert decode(encoded(torch.rand(3, 8, 8), "PNG")).metadata.jpeg_quality is None


@pytest.mark.parametrize("levels", [3, 4, 8, 15])
@pytest.mark.parametrize("grey", [False, True])
def test_noise_on_photographs(levels: int, grey: bool) -> None:
    """Within a quarter, on smooth and on textured ones."""
    for index, path in enumerate(SAMPLES):
        if path.stem == "grass":
            continue  # blades of one pixel everywhere: nobody could tell them from noise
        found = picture_condition(Picture(noisy(shrunk(index), levels, grey))).noise
        assert found == pytest.approx(levels, rel=0.25), path


def test_texture_is_no_noise() -> None:
    conditions = [picture_condition(Picture(shrunk(i, 2))) for i in range(len(SAMPLES))]
    assert {c.damage for c in conditions} == {None}


@settings(max_examples=25, deadline=None)
@given(levels=st.floats(1, 20), grey=st.booleans(), bits=st.sampled_from([8, 16]))
def test_noise_on_a_slope(levels: float, grey: bool, bits: int) -> None:
    slope = torch.linspace(0.3, 0.7, 240).expand(3, 200, -1)
    rgb = noisy(slope, levels, grey)
    whole = (rgb * (2**bits - 1)).round().to(torch.uint8 if bits == 8 else torch.uint16)
    for picture in (Picture(whole, bits=bits), Picture(rgb)):
        found = picture_condition(picture)
        assert found.noise == pytest.approx(levels, rel=0.2, abs=0.2)
        assert found.edges < 0.03


def drawing(words: int) -> Tensor:
    """A screenshot or line art: flat areas, lines, letters of a font on a grid of 8 pixels."""
    image = Image.new("RGB", (400, 304), (240, 244, 250))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 400, 40), (30, 90, 160))
    for y in range(48, 304, 16):
        draw.text((16, y), "The quick brown fox jumps " * words, (20, 20, 20))
        draw.line((0, y - 3, 400, y - 3), (200, 200, 210))
    draw.ellipse((250, 120, 390, 290), outline=(200, 30, 30), width=3)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def test_screenshots_and_line_art_are_clean() -> None:
    pixels = torch.randint(0, 2, (3, 38, 50), generator=torch.Generator().manual_seed(0)) / 1.0
    enlarged = pixels.repeat_interleave(8, 1).repeat_interleave(8, 2) * 0.6 + 0.2
    checkered = (torch.arange(200)[:, None] + torch.arange(200)) % 2
    for rgb in (drawing(1), drawing(0), enlarged, checkered.expand(3, -1, -1) * 0.5 + 0.2):
        assert picture_condition(Picture(rgb)).damage is None


def test_block_edges_of_what_is_no_jpeg_any_more() -> None:
    """Cropped, so that the grid does not begin in a corner."""
    found = []
    for index in range(len(SAMPLES)):
        file = io.BytesIO(encoded(shrunk(index, 2), quality=50))
        rgb = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[:, 5:, 3:]
        found.append(picture_condition(Picture(rgb)).damage)
    assert found.count("block edges of an earlier JPEG") >= 4


def test_what_is_invisible_does_not_count() -> None:
    rgb = noisy(torch.full((3, 128, 128), 0.5), 8)
    alpha = torch.ones(1, 128, 128)
    rgb[:, :, 64:], alpha[:, :, 64:] = 0.7, 0
    assert picture_condition(Picture(rgb, alpha)).noise == pytest.approx(8, rel=0.15)


@pytest.mark.parametrize("size", [(1, 1), (13, 300), (14, 14), (15, 70)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    picture_condition(Picture(torch.rand(3, *size)))


def test_large_pictures_cost_no_more_than_small_ones() -> None:
    """A thousand megapixels that take no memory: all pixels are one."""
    start = time.perf_counter()
    large = torch.full((3, 1, 1), 90, dtype=torch.uint8).expand(3, 25_000, 40_000)
    assert picture_condition(Picture(large)) == PictureCondition()
    assert time.perf_counter() - start < 5


def test_the_rule() -> None:
    assert PictureCondition(72).damage == "JPEG of quality 72"
    assert PictureCondition(98, 9.2).damage == "noise of 9 levels"
    assert PictureCondition(None, 0, 0.2).damage == "block edges of an earlier JPEG"
    for clean in (PictureCondition(), PictureCondition(98, 1.0), PictureCondition(95, 0, 0.2)):
        assert clean.damage is None
    assert str(PictureCondition(98, 1.0)) == "JPEG of quality 98, little noise"
    assert str(PictureCondition()) == "clean"

"""--size: what the words mean, and that the result has exactly that size."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.batch.folders import fill, upscale

from pcsr_lightning import inference, weights
from pcsr_lightning.batch.sizes import MAX_SCALE, WantedSize, check_scale
from pcsr_lightning.errors import ConfigError

sides = st.integers(1, 5000)
lr_sizes = st.tuples(sides, sides)


@pytest.mark.parametrize(
    ("text", "width", "height"),
    [("3840x2160", 3840, 2160), ("3840x", 3840, None), ("x2160", None, 2160), (" 1X1 ", 1, 1)],
)
def test_words(text: str, width: int | None, height: int | None) -> None:
    assert WantedSize.parse(text) == WantedSize(width, height)


@pytest.mark.parametrize("text", ["", "x", "3840", "0x5", "5x0", "-3x4", "3.5x4", "axb", "1x2x3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        WantedSize.parse(text)


def test_one_limit() -> None:
    assert MAX_SCALE == inference.MAX_SCALE


@given(lr_sizes, st.data())
def test_exact_is_exact_or_refused(lr_size: tuple[int, int], data: st.DataObject) -> None:
    h, w = lr_size
    H, W = data.draw(st.integers(1, 17 * h)), data.draw(st.integers(1, 17 * w))
    wanted = WantedSize(W, H, exact=True)
    if h <= H <= 16 * h and w <= W <= 16 * w:
        assert wanted.of(lr_size) == (H, W)
    else:
        word = "shrink" if min(H - h, W - w) < 0 else "grow"
        with pytest.raises(ConfigError, match=f"{W}x{H}.*{w}x{h} pixels and would {word}"):
            wanted.of(lr_size)


@given(lr_sizes, st.data())
def test_fit_fills_the_box_and_keeps_the_shape(
    lr_size: tuple[int, int], data: st.DataObject
) -> None:
    h, w = lr_size
    W, H = data.draw(st.integers(1, 20 * w)), data.draw(st.integers(1, 20 * h))
    # In exact fractions: the largest scale at which both sides are inside the box.
    scale = min(Fraction(W, w), Fraction(H, h))
    if not 1 <= scale <= 16:
        with pytest.raises(ConfigError, match=r"shrink|grow"):
            WantedSize(W, H).of(lr_size)
        return
    found = WantedSize(W, H).of(lr_size)
    assert found[0] <= H
    assert found[1] <= W
    assert found[0] == H or found[1] == W
    assert abs(found[0] - h * scale) <= Fraction(1, 2)
    assert abs(found[1] - w * scale) <= Fraction(1, 2)
    inference.checks.check_size(lr_size, found)


@given(lr_sizes, st.data())
def test_one_side_leads(lr_size: tuple[int, int], data: st.DataObject) -> None:
    h, w = lr_size
    W = data.draw(st.integers(w, 16 * w))
    found = WantedSize(W, None).of(lr_size)
    assert found == (math.floor(Fraction(h * W, w) + Fraction(1, 2)), W)
    assert WantedSize(None, W).of((w, h)) == (W, found[0])


@pytest.mark.parametrize("scale", [0.0, -1.0, 0.99, 16.01, float("nan"), float("inf"), -math.inf])
def test_scales_out_of_range(scale: float) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"between 1 and 16, not {scale:g}")):
        check_scale(scale)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (["--size", "37x41", "--exact"], (37, 41)),
        (["--size", "10x192", "--exact"], (10, 192)),
        (["--size", "37x41", "--fit"], (34, 41)),
        (["--size", "30x41"], (30, 36)),
        (["--size", "33x"], (33, 40)),
        (["--size", "x29"], (24, 29)),
        (["--scale", "1"], (10, 12)),
        (["--scale", "16"], (160, 192)),
    ],
)
def test_through_the_command(
    tmp_path: Path,
    options: list[str],
    size: tuple[int, int],
) -> None:
    source = fill(tmp_path, ["in.png"])[0]
    assert upscale(source, tmp_path / "out.png", *options)[0] == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == size


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "9x100"], "10x12 pixels and would shrink to 9x11"),
        (["--size", "9x100", "--exact"], "would shrink to 9x100"),
        (["--size", "1000x"], "would grow 100 times to 1000x1200; at most 16"),
        (["--size", "20x200", "--exact"], "would grow 16.7 times to 20x200"),
    ],
)
def test_refused_with_numbers(
    tmp_path: Path,
    options: list[str],
    said: str,
) -> None:
    source = fill(tmp_path, ["in.png"])[0]
    code, out, err = upscale(source, tmp_path / "out.png", *options)
    assert (code, out) == (1, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("lr_size", [(1, 1), (1, 7), (6, 1), (3, 5)])
@pytest.mark.parametrize("routing", [{"k": 0.0}, {"adaptive": True}, {"budget": 0.5}])
def test_tiny_pictures_at_every_scale(
    lr_size: tuple[int, int], routing: dict[str, float | bool]
) -> None:
    model = weights.load(weights.DEFAULT_MODEL)
    picture = torch.rand(1, 3, *lr_size, generator=torch.Generator().manual_seed(0))
    for scale in (1, 1.3, 2, 2.5, 3, 4, 5, 6, 7, 7.9, 8):
        result = inference.upscale(model, picture, scale, **routing)  # type: ignore[arg-type]
        expected = tuple(round(n * scale) for n in lr_size)
        assert result.image.shape == (1, 3, *expected)
        assert bool(torch.isfinite(result.image).all())
        # Not black: around the picture's own mean.
        assert (result.image.mean() - picture.mean()).abs() < 0.3

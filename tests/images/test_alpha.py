"""Enlarging transparent pictures draws no foreign colour into their edges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pcsr_lightning.images import (
    AlphaRange,
    ColourRows,
    Picture,
    bicubic,
    fill_under_alpha,
)


def disc(size: int = 48) -> tuple[Tensor, Tensor]:
    """A coloured disc with a soft edge, and its colour everywhere."""
    at = torch.arange(size) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    radius = ((y - size / 2) ** 2 + (x - size / 2) ** 2).sqrt()
    alpha = (size / 3 - radius + 0.5).clamp(0, 1)[None]
    return torch.stack([0.8 - 0.3 * x / size, 0.3 + 0.4 * y / size, 0.5 + 0 * x]), alpha


def halo(rgb: Tensor, alpha: Tensor, backdrop: float) -> float:
    """How far the enlarged picture over a backdrop is off the enlarged composite (bicubic)."""
    size = (4 * rgb.shape[1], 4 * rgb.shape[2])
    large_alpha = bicubic(alpha, size).clamp(0, 1)
    over = bicubic(rgb, size).clamp(0, 1) * large_alpha + backdrop * (1 - large_alpha)
    composite = bicubic(rgb * alpha + backdrop * (1 - alpha), size).clamp(0, 1)
    return float((over - composite).square().mean().sqrt())


@pytest.mark.parametrize("hidden", [0.0, 1.0, None])
@pytest.mark.parametrize("backdrop", [0.0, 1.0])
def test_no_halos(hidden: float | None, backdrop: float) -> None:
    """Filled, it is as good as if the true colour had been under the transparent pixels."""
    colour, alpha = disc()
    torch.manual_seed(0)
    junk = torch.rand_like(colour) if hidden is None else torch.full_like(colour, hidden)
    rgb = torch.where(alpha > 0, colour, junk)
    ideal = halo(colour, alpha, backdrop)
    assert halo(rgb, alpha, backdrop) > 2 * ideal
    assert halo(fill_under_alpha(rgb, alpha), alpha, backdrop) < 1.02 * ideal


def test_opaque_and_invisible_pictures_are_left_alone() -> None:
    rgb = torch.rand(3, 5, 7)
    for alpha in (torch.ones(1, 5, 7), torch.full((1, 5, 7), 0.01), torch.zeros(1, 5, 7)):
        assert fill_under_alpha(rgb, alpha) is rgb


@given(
    h=st.integers(1, 40), w=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 10**6)
)
@settings(max_examples=60, deadline=None)
def test_visible_pixels_stay_and_others_lie_between_them(
    h: int, w: int, share: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.rand(3, h, w, generator=generator)
    alpha = torch.rand(1, h, w, generator=generator)
    alpha = torch.where(torch.rand(1, h, w, generator=generator) < share, 0, alpha)
    before = rgb.clone()
    filled = fill_under_alpha(rgb, alpha)
    assert torch.equal(rgb, before)
    seen = (alpha > 0)[0]
    assert torch.equal(filled[:, seen], rgb[:, seen])
    if seen.any():
        low, high = rgb[:, seen].amin(1), rgb[:, seen].amax(1)
        assert (filled >= low[:, None, None] - 1e-5).all()
        assert (filled <= high[:, None, None] + 1e-5).all()


def test_one_faint_pixel_colours_a_large_picture() -> None:
    rgb, alpha = torch.zeros(3, 600, 900), torch.zeros(1, 600, 900)
    rgb[:, 400, 70] = torch.tensor([0.2, 0.9, 0.4])
    alpha[:, 400, 70] = 1 / 65535
    filled = fill_under_alpha(rgb, alpha)
    torch.testing.assert_close(filled, rgb[:, 400:401, 70:71].expand_as(rgb))


@given(
    h=st.integers(1, 60),
    w=st.integers(1, 30),
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 20),
    strip=st.integers(1, 20),
    shown=st.sampled_from([0.002, 0.1, 0.9]),
)
@settings(max_examples=60, deadline=None)
def test_any_rows_of_the_filled_colour(
    h: int, w: int, seed: int, rows: int, strip: int, shown: float
) -> None:
    """To the last bit what the whole picture gives, from whole numbers too."""
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.randint(256, (3, h, w), generator=generator, dtype=torch.uint8)
    alpha = torch.randint(256, (1, h, w), generator=generator, dtype=torch.uint8)
    alpha = alpha * (torch.rand(1, h, w, generator=generator) < shown)
    whole = fill_under_alpha(rgb.float() / 255, alpha.float() / 255)
    colour = ColourRows(Picture(rgb, alpha), strip)
    parts = [colour.rows(top, min(h, top + rows)) for top in range(0, h, rows)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


@given(
    h=st.integers(1, 12),
    w=st.integers(1, 12),
    scale=st.floats(1, 5),
    rows=st.integers(1, 9),
    bits=st.sampled_from([8, 16]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_the_range_of_the_enlarged_alpha(
    h: int, w: int, scale: float, rows: int, bits: int, seed: int
) -> None:
    """Every pixel lies between the least and the greatest of the 3 x 3 LR pixels around it."""
    generator, top = torch.Generator().manual_seed(seed), 2**bits - 1
    values = torch.randint(2**bits, (h, w), generator=generator)
    values = values * (torch.rand(h, w, generator=generator) < 0.6)
    known = AlphaRange(values.to(torch.uint8 if bits == 8 else torch.uint16)[None])
    size = round(h * scale), round(w * scale)
    wild = torch.rand(1, *size, generator=generator) * 3 - 1
    found = torch.cat(
        [known.clamp(wild[:, i : i + rows], i, size) for i in range(0, size[0], rows)], dim=1
    )
    unseen, invisible = known.unseen(0, h), known.invisible(0, h)
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = int((i + 0.5) * h / size[0]), int((j + 0.5) * w / size[1])
            near = values[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].double() / top
            low, high = near.min().float(), near.max().float()
            assert found[0, i, j] == wild[0, i, j].clamp(low, high)
            assert unseen[y, x] == (low == high)
            assert invisible[y, x] == (high == 0)
    expected = float(values.flatten()[0]) / top if (values == values[0, 0]).all() else None
    assert known.constant == (None if expected is None else pytest.approx(expected))


def test_only_invisible_colours_are_unseen() -> None:
    rgb, alpha = torch.rand(3, 9, 9), torch.full((1, 9, 9), 0.5)
    assert ColourRows(Picture(rgb)).unseen(0, 9) is None
    assert ColourRows(Picture(rgb, alpha)).unseen(0, 9) is None
    alpha[:, :, 4:] = 0
    unseen = ColourRows(Picture(rgb, alpha)).unseen(2, 9)
    assert unseen is not None
    assert torch.equal(unseen, (torch.arange(9) > 4).expand(7, 9))
    everything = ColourRows(Picture(rgb, torch.zeros(1, 9, 9))).unseen(0, 9)
    assert everything is not None
    assert everything.all()

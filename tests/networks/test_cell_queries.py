"""Random HR pixels of each LR pixel, against the query grid and the outputs at all pixels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.small import small_pcsr
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import CellQueries, QueryGrid, bilinear_upsample

SIDES = [(12, 24), (12, 30), (12, 33), (7, 26), (5, 5)]  # x2, x2.5, x2.75, x3.71, x1


def drawn(
    lr_size: tuple[int, int], sizes: list[tuple[int, int]], count: int, seed: int = 0
) -> CellQueries:
    generator = torch.Generator().manual_seed(seed)
    return CellQueries.draw(lr_size, torch.tensor(sizes), count, generator)


@given(
    lr_size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    more=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=1, max_size=4),
    count=st.integers(1, 4),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_each_lr_pixel_gets_pixels_of_its_own(
    lr_size: tuple[int, int], more: list[tuple[int, int]], count: int, seed: int
) -> None:
    h, w = lr_size
    sizes = [(h + a, w + b) for a, b in more]
    queries = drawn(lr_size, sizes, count, seed)
    assert queries.row_BhwN.shape == (len(sizes), h, w, count)
    for b, size in enumerate(sizes):
        grid = QueryGrid.make(lr_size, size)
        rows, cols = queries.row_BhwN[b], queries.col_BhwN[b]
        assert 0 <= rows.min() <= rows.max() < size[0]
        assert 0 <= cols.min() <= cols.max() < size[1]
        assert torch.equal(grid.rows_H[rows], torch.arange(h)[:, None, None].expand_as(rows))
        assert torch.equal(grid.cols_W[cols], torch.arange(w)[:, None].expand_as(cols))
        # exactly the offsets of the grid, and its cell
        dy, dx, *cell = queries.offset_BhwN4[b].unbind(-1)
        assert torch.equal(dy, grid.dy_H[rows])
        assert torch.equal(dx, grid.dx_W[cols])
        for found, expected in zip(cell, grid.cell, strict=True):
            assert torch.equal(found, torch.full_like(found, expected))


@pytest.mark.parametrize(("n_lr", "n_hr"), [(4, 16), (6, 17), (3, 7)])
def test_all_pixels_are_as_likely(n_lr: int, n_hr: int) -> None:
    count = 20000
    queries = drawn((n_lr, n_lr), [(n_hr, n_hr)], count)
    flat = (queries.row_BhwN * n_hr + queries.col_BhwN).flatten()
    found = torch.bincount(flat, minlength=n_hr * n_hr).view(n_hr, n_hr)
    nearest = QueryGrid.make((n_lr, n_lr), (n_hr, n_hr)).rows_H
    sizes = torch.bincount(nearest)[nearest]
    expected = count / (sizes[:, None] * sizes)
    assert ((found - expected).abs() < 6 * expected.sqrt()).all()


def test_crops_are_drawn_independently_and_repeatably() -> None:
    queries = drawn((8, 8), [(32, 32)] * 3, 2)
    for a, b in ((0, 1), (1, 2)):
        assert not torch.equal(queries.row_BhwN[a], queries.row_BhwN[b])
    assert not torch.equal(queries.row_BhwN, queries.col_BhwN)
    again = drawn((8, 8), [(32, 32)] * 3, 2)
    assert torch.equal(again.row_BhwN, queries.row_BhwN)
    assert torch.equal(again.col_BhwN, queries.col_BhwN)


def test_shares_make_the_whole() -> None:
    sizes = torch.tensor([[32, 32], [20, 31], [9, 8], [17, 64]])
    whole = CellQueries.draw((8, 8), sizes, 2, torch.Generator().manual_seed(1))
    for rank in (0, 1):
        own = slice(2 * rank, 2 * rank + 2)
        part = CellQueries.draw((8, 8), sizes[own], 2, torch.Generator().manual_seed(1), (rank, 2))
        assert torch.equal(part.row_BhwN, whole.row_BhwN[own])
        assert torch.equal(part.offset_BhwN4, whole.offset_BhwN4[own])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_lr", "n_hr"), SIDES)
def test_base_is_the_bilinear_picture(n_lr: int, n_hr: int, dtype: torch.dtype) -> None:
    """At all HR pixels together, each crop with a size of its own, borders too."""
    torch.manual_seed(0)
    lr = torch.randn(2, 3, n_lr, n_lr + 2, dtype=dtype)
    sizes = [(n_hr, n_hr + 3), (2 * n_hr, 3 * n_hr)]
    generator = torch.Generator().manual_seed(0)
    queries = CellQueries.draw((n_lr, n_lr + 2), torch.tensor(sizes), 9, generator, dtype=dtype)
    base = queries.base(lr)
    assert base.dtype == dtype
    for b, size in enumerate(sizes):
        full = bilinear_upsample(lr[b : b + 1], size)[0]
        expected = full[:, queries.row_BhwN[b], queries.col_BhwN[b]].flatten(1)
        atol = 1e-5 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(base[b], expected, atol=atol, rtol=0)


def test_values_are_looked_up_in_each_crop() -> None:
    queries = drawn((4, 4), [(12, 9), (16, 16)], 2)
    values = torch.arange(2 * 3 * 16 * 16).view(2, 3, 16, 16)
    found = queries.at(values)
    assert found.shape == (2, 3, 32)
    for b in (0, 1):
        rows, cols = queries.row_BhwN[b].flatten(), queries.col_BhwN[b].flatten()
        assert torch.equal(found[b], values[b][:, rows, cols])


def every_pixel(lr_size: tuple[int, int], scale: int, B: int) -> CellQueries:
    """Not drawn: all ``scale * scale`` HR pixels of each LR pixel."""
    (h, w), n = lr_size, torch.arange(scale * scale)
    rows = torch.arange(h)[:, None, None] * scale + n // scale
    cols = torch.arange(w)[:, None] * scale + n % scale
    shape = (B, h, w, scale * scale)
    size = torch.tensor([[h * scale, w * scale]]).expand(B, 2)
    return CellQueries.make(rows.expand(shape), cols.expand(shape), size)


def as_picture(values_BCQ: Tensor, lr_size: tuple[int, int], scale: int) -> Tensor:
    B, C, _ = values_BCQ.shape
    h, w = lr_size
    cells = values_BCQ.view(B, C, h, w, scale, scale)
    return cells.permute(0, 1, 2, 4, 3, 5).reshape(B, C, h * scale * w * scale)


@pytest.mark.parametrize("backbone", ["fsrcnn", "carn"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_all_pixels_of_all_cells_are_the_picture(backbone: str, scale: int) -> None:
    model, lr_size = small_pcsr(backbone), (9, 7)
    lr = torch.rand(2, 3, *lr_size)
    with torch.no_grad():
        out = model(lr, None, every_pixel(lr_size, scale, 2))
        full = model(lr, (9 * scale, 7 * scale))
    pairs = [
        (out.base_B3Q, full.base_B3Q),
        (out.logits_BMQ, full.logits_BMQ),
        *zip(out.residual_MB3Q, full.residual_MB3Q, strict=True),
    ]
    for found, expected in pairs:
        torch.testing.assert_close(as_picture(found, lr_size, scale), expected, atol=1e-6, rtol=0)


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        drawn((4, 4), [(8, 8)], 0)
    with pytest.raises(ConfigError, match=r"needs a size \(H, W\)"):
        small_pcsr()(torch.rand(1, 3, 4, 4), None, torch.tensor([3]))

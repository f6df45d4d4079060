"""MATLAB-style bicubic against golden values and against references written otherwise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.images import bicubic


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys 1981, Eq. 4, as printed there, with a = -1/2."""
    x, a = np.abs(x), -0.5
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def plain(row: NDArray[np.float64], n_out: int, scale: float, origin: float) -> NDArray[np.float64]:
    """One row, one output at a time, on a row that is really mirrored many times over."""
    n, stretch = len(row), min(scale, 1.0)
    reach = int(np.ceil(2 / stretch)) + 2
    pad = reach + n + int(n_out / scale) + 5
    mirrored = np.pad(row, pad, mode="symmetric")
    out = []
    for i in range(n_out):
        centre = origin + (i + 0.5) / scale - 0.5
        pixels = np.arange(int(np.floor(centre)) - reach, int(np.floor(centre)) + reach + 1)
        weights = cubic((pixels - centre) * stretch)
        out.append(float((mirrored[pixels + pad] * weights).sum() / weights.sum()))
    return np.array(out)


@pytest.mark.parametrize("crop", ["a", "b"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_golden(shared: Path, crop: str, scale: int) -> None:
    golden = np.load(shared / "reference" / "golden.npz")
    hr = torch.from_numpy(golden[f"{crop}/hr_uint8"]).float() / 255
    expected = torch.from_numpy(golden[f"{crop}/bicubic_x{scale}"])
    height, width = expected.shape[1:]
    lr = bicubic(hr[:, : height * scale, : width * scale], (height, width))
    torch.testing.assert_close(lr, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_agrees_with_torch_on_a_mirrored_picture(scale: int) -> None:
    """torch's antialiased bicubic clips its kernel at borders; far enough inside it is MATLAB's."""
    x = torch.rand(1, 3, 12 * scale, 15 * scale, dtype=torch.float64)
    pad = 4 * scale
    mirrored = np.pad(x.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="symmetric")
    theirs = F.interpolate(
        torch.from_numpy(mirrored), size=(20, 23), mode="bicubic", antialias=True
    )
    torch.testing.assert_close(bicubic(x, (12, 15)), theirs[..., 4:-4, 4:-4], rtol=0, atol=1e-6)


@given(
    n_in=st.integers(1, 20),
    n_out=st.integers(1, 20),
    scale=st.floats(0.1, 5),
    origin=st.floats(-1, 3),
)
@example(n_in=1, n_out=1, scale=0.1, origin=0.0)
@example(n_in=3, n_out=1, scale=0.25, origin=0.0)  # the kernel is wider than the picture
@example(n_in=10, n_out=37, scale=3.7, origin=0.0)
@settings(max_examples=60, deadline=None)
def test_agrees_with_plain_sums(n_in: int, n_out: int, scale: float, origin: float) -> None:
    row = np.random.default_rng(n_in).random(n_in)
    expected = torch.from_numpy(plain(row, n_out, scale, origin))
    x = torch.from_numpy(row)
    across = bicubic(x[None, :], (1, n_out), (1.0, scale), (0.0, origin))[0]
    down = bicubic(x[:, None], (n_out, 1), (scale, 1.0), (origin, 0.0))[:, 0]
    torch.testing.assert_close(across, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(down, expected, rtol=0, atol=1e-9)


@given(scale=st.floats(1, 4), top=st.integers(0, 40), left=st.integers(0, 40))
@settings(max_examples=30, deadline=None)
def test_a_window_with_margin_gives_what_the_whole_gives(scale: float, top: int, left: int) -> None:
    whole = torch.rand(1, 3, 120, 120, generator=torch.Generator().manual_seed(1))
    margin = 8  # 2 HR pixels for each of scale
    origin = (top + margin, left + margin)
    expected = bicubic(whole, (12, 12), 1 / scale, origin)
    window = whole[..., top : top + 64, left : left + 64]
    found = bicubic(window, (12, 12), 1 / scale, (margin, margin))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_neither_clamps_nor_rounds() -> None:
    step = torch.zeros(1, 8, 8)
    step[..., 4:] = 1
    larger = bicubic(step, (32, 32))
    assert larger.min() < -0.01
    assert larger.max() > 1.01


def test_layout_dtype_and_leading_dimensions() -> None:
    x = torch.rand(2, 5, 3, 16, 12, dtype=torch.float64)
    found = bicubic(x, (4, 3))
    assert found.shape == (2, 5, 3, 4, 3)
    assert found.dtype == torch.float64
    assert found.is_contiguous()
    torch.testing.assert_close(found[1, 2], bicubic(x[1, 2], (4, 3)))


def test_autocast_and_reduced_matmul_precision_change_nothing() -> None:
    x = torch.rand(3, 32, 32)
    expected = bicubic(x, (8, 8))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = bicubic(x, (8, 8))
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found, expected)


def test_gradient_flows() -> None:
    x = torch.rand(1, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: bicubic(t, (3, 9)), (x,))


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"floating-point tensor, got torch\.uint8"):
        bicubic(torch.zeros(3, 8, 8, dtype=torch.uint8), (4, 4))


@pytest.mark.parametrize(
    ("x", "size", "scale"),
    [
        (torch.rand(3, 8, 8), (0, 4), None),
        (torch.rand(3, 0, 8), (4, 4), None),
        (torch.rand(3, 8, 8), (4, 4), -1.0),
    ],
)
def test_impossible_sizes_are_refused(x: Tensor, size: tuple[int, int], scale: float) -> None:
    with pytest.raises(ValueError, match="positive sizes and scale"):
        bicubic(x, size, scale)

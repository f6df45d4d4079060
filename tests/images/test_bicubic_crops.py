"""Many crops of different sizes at once are what each is by itself."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsr_lightning.images import bicubic, bicubic_crops


@given(
    sides=st.lists(st.integers(16, 72), min_size=1, max_size=4),
    size=st.integers(8, 16),
    extra=st.integers(0, 5),
    seed=st.integers(0, 5),
)
@settings(deadline=None)
def test_each_crop_is_bicubic_at_its_own_scale(
    sides: list[int], size: int, extra: int, seed: int
) -> None:
    margin = -(-2 * max(sides) // size) + extra
    window = max(sides) + 2 * margin
    draws = torch.Generator().manual_seed(seed)
    window_B3SS = torch.rand(len(sides), 3, window, window, generator=draws)
    found = bicubic_crops(window_B3SS, margin, torch.tensor(sides), size)
    assert (found.shape, found.dtype) == ((len(sides), 3, size, size), torch.float32)
    for b, side in enumerate(sides):
        expected = bicubic(window_B3SS[b], (size, size), size / side, (margin, margin))
        torch.testing.assert_close(found[b], expected, rtol=0, atol=1e-6)


def test_autocast_and_reduced_matmul_precision_change_nothing() -> None:
    window_B3SS = torch.rand(2, 3, 80, 80)
    crops = (window_B3SS, 8, torch.tensor([64, 40]), 16)
    expected = bicubic_crops(*crops)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = bicubic_crops(*crops)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found, expected)

"""Which pixels are compared: sizes by hand, and what LR and HR pictures hold."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsr_lightning.errors import ConfigError, PictureError
from pcsr_lightning.evaluation import Protocol, make_pair, scale_pair, shaved_border
from pcsr_lightning.images import bicubic


def noise(h: int, w: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(h * 1000 + w)
    return torch.randint(0, 256, (3, h, w), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("hr", "scale", "protocol", "lr_size", "hr_size"),
    [
        # HR cut to a multiple of the scale
        ((128, 96), (4, 4), "whole", (32, 24), (128, 96)),
        ((131, 99), (4, 4), "whole", (32, 24), (128, 96)),
        ((131, 99), (3, 3), "whole", (43, 33), (129, 99)),
        ((40, 41), (1, 1), "whole", (40, 41), (40, 41)),
        # floor(121 / 2.5) = 48 rows, enlarged to 120
        ((121, 104), (2.5, 2.5), "whole", (48, 41), (120, 102)),
        # 33 / 1.1 falls short of 30 in binary
        ((33, 55), (1.1, 1.1), "whole", (30, 50), (33, 55)),
        # different scales for height and width: floor(100 / 4) and floor(100 / 3.7) = 27 -> 99.9
        ((100, 100), (4, 3.7), "whole", (25, 27), (100, 100)),
        # the tables: 28 n + 4. 512 / 4 = 128 = 4 + 4 * 28 + 12, so 116
        ((512, 512), (4, 4), "published", (116, 116), (464, 464)),
        # 60 = 4 + 2 * 28 stays; 59 falls to 32
        ((240, 239), (4, 4), "published", (60, 32), (240, 128)),
        ((128, 128), (4, 4), "published", (32, 32), (128, 128)),
        ((130, 67), (2, 2), "published", (60, 32), (120, 64)),
        ((130, 67), (2, 2), "overlapped", (60, 32), (120, 64)),
        # multiples of 128: 330 / 1 and 260 / 2
        ((330, 260), (1, 2), "patches", (256, 128), (256, 256)),
    ],
)
def test_sizes_by_hand(hr, scale, protocol, lr_size, hr_size) -> None:
    pair = make_pair(noise(*hr), scale, Protocol(protocol))
    assert tuple(pair.lr_13hw.shape) == (1, 3, *lr_size)
    assert tuple(pair.hr_13HW.shape) == (1, 3, *hr_size)


def test_lr_is_the_bicubic_of_the_cut_picture_neither_rounded_nor_clamped() -> None:
    hr = noise(66, 50)
    pair = make_pair(hr, (4, 4))
    expected = bicubic(hr[None, :, :64, :48].double() / 255, (16, 12))
    torch.testing.assert_close(pair.lr_13hw.double(), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(pair.lr_13hw * 255, (pair.lr_13hw * 255).round(), atol=1e-2)
    black_and_white = (noise(64, 64) > 128).to(torch.uint8) * 255
    black_and_white[:, :, 32:] = 255
    assert make_pair(black_and_white, (4, 4)).lr_13hw.max() > 1


def test_hr_is_the_top_left_of_the_file() -> None:
    hr = noise(514, 530)
    for protocol in Protocol:
        pair = make_pair(hr, (4, 4), protocol)
        H, W = pair.hr_13HW.shape[-2:]
        assert torch.equal((pair.hr_13HW[0] * 255).round().to(torch.uint8), hr[:, :H, :W])


def test_the_tables_cut_after_shrinking() -> None:
    """So the LR pixels at the cut still know what lay beyond it."""
    hr = noise(240, 200)
    whole, cut = (make_pair(hr, (4, 4), Protocol(p)) for p in ("whole", "published"))
    assert cut.lr_13hw.shape[-2:] == (60, 32)
    assert torch.equal(cut.lr_13hw, whole.lr_13hw[..., :60, :32])
    alone = bicubic(cut.hr_13HW, (60, 32))
    assert not torch.allclose(cut.lr_13hw[..., -1], alone[..., -1], atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    h=st.integers(20, 70),
    w=st.integers(20, 70),
    scale=st.one_of(st.sampled_from([1, 2, 3, 4]), st.floats(1, 4)),
)
def test_no_pixel_is_invented_and_few_are_lost(h: int, w: int, scale: float) -> None:
    pair = make_pair(torch.zeros(3, h, w, dtype=torch.uint8), (scale, scale))
    for n, lr, hr in zip((h, w), pair.lr_13hw.shape[-2:], pair.hr_13HW.shape[-2:], strict=True):
        assert n - scale - 1 < hr <= n
        assert abs(hr - lr * scale) <= 0.5


@pytest.mark.parametrize(
    ("size", "scale", "protocol", "says"),
    [
        ((3, 40), (4, 4), "whole", r"40 x 3 pixels .* at least 4 x 4"),
        ((8, 40), (4, 4), "whole", r"border of 4"),
        ((127, 400), (4, 4), "published", r"400 x 127 .*'published'.* 128 x 128"),
        ((255, 400), (2, 2), "patches", r"400 x 255 .*'patches'.* 256 x 256"),
    ],
)
def test_too_small(size, scale, protocol, says) -> None:
    with pytest.raises(PictureError, match=says):
        make_pair(noise(*size), scale, Protocol(protocol))


def test_the_tables_know_whole_scales_only() -> None:
    for protocol in list(Protocol)[1:]:
        with pytest.raises(ConfigError, match=f"protocol={protocol} needs an integer scale"):
            make_pair(noise(320, 320), (2.5, 2.5), protocol)


def test_scales() -> None:
    assert scale_pair(4) == (4.0, 4.0)
    assert scale_pair([4, 3.7]) == (4.0, 3.7)
    for bad in (0.5, float("nan"), [4, 4, 4], "four", 1000):
        with pytest.raises(ConfigError, match="scale"):
            scale_pair(bad)
    assert [shaved_border(s) for s in ((4.0, 4.0), (2.5, 2.5), (3.7, 4.0))] == [4, 3, 4]

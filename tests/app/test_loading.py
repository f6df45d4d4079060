"""Pictures that come in: read, refused with a reason, never kept as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pcsr_lightning.app.loading import (
    LIVE_PIXELS,
    SAMPLES,
    load_reference,
    load_sample,
    load_upload,
    result_size,
    sample_file,
)
from pcsr_lightning.errors import ConfigError, PictureError
from pcsr_lightning.images import Picture, read, read_rgb8, write


@pytest.mark.parametrize("stem", list(SAMPLES))
def test_samples(stem: str) -> None:
    loaded = load_sample(stem)
    h, w = loaded.size
    assert loaded.reference_3HW is not None
    assert loaded.reference_3HW.shape == (3, 4 * h, 4 * w)
    assert loaded.reference_3HW.dtype == torch.uint8
    whole = loaded.picture.rgb * 255
    assert torch.allclose(whole, whole.round(), atol=1e-4)
    original = read_rgb8(sample_file(stem))
    assert torch.equal(original[:, : 4 * h, : 4 * w], loaded.reference_3HW)
    assert loaded.name == sample_file(stem).name


def test_no_such_sample() -> None:
    with pytest.raises(PictureError, match="nobody"):
        sample_file("nobody")


def test_an_upload_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.png"
    alpha = torch.zeros(1, 6, 8)
    alpha[:, :, 4:] = 1
    rgb = torch.zeros(3, 6, 8)
    rgb[:, :, 4:] = 0.8
    write(Picture(rgb, alpha, bits=16), path)
    loaded = load_upload(path, "mine.png", 48)
    assert loaded.picture is not None
    assert (loaded.name, loaded.size, loaded.picture.bits) == ("mine.png", (6, 8), 16)
    assert loaded.file == path
    # Colour that cannot be seen is filled in from what can be.
    assert float(loaded.picture.rgb.min()) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("content", [b"", b"words", b"\x89PNG\r\n\x1a\n\0\0"])
def test_what_is_no_picture(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=r"^mine\.png: "):
        load_upload(path, "mine.png", 100)
    with pytest.raises(PictureError, match=r"^bad\.png: "):
        load_reference(path, 100)
    assert not path.exists()


def test_too_many_pixels_to_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    write(Picture(torch.zeros(3, 10, 10)), path)
    with pytest.raises(PictureError, match=r"10 x 10 .* the 99 .* --max-pixels") as no:
        load_upload(path, "mine.png", 99)
    assert "Raise max_pixels" not in str(no.value)


def test_a_file_that_has_gone(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="cannot be read"):
        load_upload(tmp_path / "gone.png", "gone.png", 100)


@pytest.mark.parametrize("kept", [True, False])
def test_a_part_of_a_large_picture(tmp_path: Path, kept: bool) -> None:
    path = tmp_path / "large.png"
    rgb = (torch.rand(3, 1000, 1500) * 255).round() / 255
    write(Picture(rgb), path)
    loaded = load_upload(path, "large.png", 2**26)
    if not kept:
        loaded = replace(loaded, picture=None)
    assert loaded.size == (1000, 1500)
    assert loaded.window(2, LIVE_PIXELS, (0.5, 0.5)) is None
    assert torch.equal(loaded.part(None).rgb, rgb)
    for focus, corner in (((0.5, 0.5), (356, 558)), ((0.0, 1.0), (0, 1116)), ((0.99, 0), (712, 0))):
        window = loaded.window(4, LIVE_PIXELS, focus)
        assert window == (*corner, 288, 384)
        top, left = corner
        assert torch.equal(loaded.part(window).rgb, rgb[:, top : top + 288, left : left + 384])
    # Where little can be shown, it is a smaller part.
    _, _, h, w = loaded.window(8, 500_000, (0.5, 0.5)) or (0, 0, 0, 0)
    assert 400_000 < 64 * h * w <= 500_000


def test_reference(tmp_path: Path) -> None:
    path = tmp_path / "reference.png"
    write(Picture(torch.rand(3, 5, 7)), path)
    expected = read(path).rgb.mul(255).round().to(torch.uint8)
    assert torch.equal(load_reference(path, 35), expected)
    assert not path.exists()


def test_result_size() -> None:
    assert result_size((100, 200), 2.5, 125_000) == (250, 500)
    with pytest.raises(PictureError, match=r"500 x 250 = 125,000 pixels.* 124,999: scale 2\.4 "):
        result_size((100, 200), 2.5, 124_999)
    with pytest.raises(PictureError, match="too large at any scale"):
        result_size((100, 200), 1, 19_999)
    with pytest.raises(ConfigError, match="scale"):
        result_size((100, 200), 0.5, 10**9)

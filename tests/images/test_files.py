"""Picture files: what goes in comes out; what cannot is said in one line naming the file."""

from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import Picture, read, read_rgb8, write

SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif"]


def noise(bits: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(bits)
    return torch.randint(0, 2**bits, (channels, 13, 17), generator=generator).float() / (
        2**bits - 1
    )


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.equal(a, b))


# Reading what others wrote


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_exact(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    values = np.random.default_rng(0).integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    pyvips.Image.new_from_array(values, interpretation="rgb16").write_to_file(str(path))
    picture = read(path)
    assert picture.bits == 16
    found = (picture.rgb.double() * 65535).round().numpy().transpose(1, 2, 0)
    assert np.array_equal(found, values)
    eight = read_rgb8(path).numpy().transpose(1, 2, 0)
    assert np.array_equal(eight, np.rint(values / 257).astype(np.uint8))


def test_cmyk_becomes_srgb(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    inks = Image.new("CMYK", (16, 8), (0, 0, 0, 0))
    inks.paste((255, 0, 0, 0), (8, 0, 16, 8))
    inks.save(path, quality=100)
    picture = read(path)
    assert picture.metadata.icc is None
    white, cyan = picture.rgb[:, 4, 2], picture.rgb[:, 4, 13]
    assert white.min() > 0.95
    assert cyan[0] < 0.4
    assert cyan[2] > 0.7


# Writing and reading back


def test_values_are_clamped_and_rounded(tmp_path: Path) -> None:
    rgb = torch.tensor([-0.5, 0.4999 / 255, 0.5001 / 255, 1.5]).expand(3, 1, 4)
    write(Picture(rgb), tmp_path / "out.png")
    assert read_rgb8(tmp_path / "out.png")[0, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize(("bits", "dtype"), [(8, torch.uint8), (16, torch.uint16)])
@pytest.mark.parametrize("grey", [False, True])
def test_whole_numbers_are_written_as_they_are(
    tmp_path: Path, bits: int, dtype: torch.dtype, grey: bool
) -> None:
    """More rows than are converted at a time."""
    top = 2**bits - 1
    values = torch.randint(0, top + 1, (1 if grey else 3, 300, 7)).expand(3, 300, 7)
    alpha = torch.rand(1, 300, 7)
    write(Picture(values.to(dtype), alpha, bits, grey), tmp_path / "x.png")
    found = read(tmp_path / "x.png")
    assert torch.equal((found.rgb * top).round().long(), values)
    assert found.alpha is not None
    assert torch.equal((found.alpha * top).round(), (alpha * top).round())
    write(Picture(values.float() / top, alpha, bits, grey), tmp_path / "y.png")
    assert same(read(tmp_path / "y.png").rgb, found.rgb)


# Errors


@pytest.mark.parametrize("reader", [read, read_rgb8])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_pictures_are_errors(tmp_path: Path, suffix: str, reader: object) -> None:
    path = tmp_path / f"cut{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert callable(reader)
    with pytest.raises(PictureError, match="cannot read this picture") as caught:
        reader(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_write_errors(tmp_path: Path) -> None:
    picture = Picture(noise(8))
    with pytest.raises(PictureError, match=r"out\.gif: cannot write .* '\.gif'.*\.png, \.jpg"):
        write(picture, tmp_path / "out.gif")
    with pytest.raises(PictureError, match=r"folder .*nowhere does not exist"):
        write(picture, tmp_path / "nowhere" / "out.png")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(PictureError, match=r"taken\.png: is a folder"):
        write(picture, tmp_path / "taken.png")
    with pytest.raises(PictureError, match=r"a picture is \(3, h, w\), got \(1, 3, 13, 17\)"):
        write(Picture(noise(8)[None]), tmp_path / "out.png")

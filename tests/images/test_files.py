"""Picture files: what goes in comes out; what cannot is said in one line naming the file."""

import logging
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import Picture, read, read_rgb8, write

SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif"]


def smooth(height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """A colour gradient, which lossy formats keep well."""
    y, x = np.mgrid[0:height, 0:width]
    planes = (255 * y / height, 255 * x / width, 255 - 100 * (x + y) / (height + width))
    return np.stack(planes, -1).astype(np.uint8)


def noise(bits: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(bits)
    return torch.randint(0, 2**bits, (channels, 13, 17), generator=generator).float() / (
        2**bits - 1
    )


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.equal(a, b))


# Reading what others wrote


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reads_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    lossy = suffix in (".jpg", ".jpeg", ".webp", ".avif")
    Image.fromarray(smooth()).save(path, **({"quality": 95} if lossy else {}))
    expected = torch.from_numpy(smooth()).permute(2, 0, 1)
    tolerance = 12 if lossy else 0
    found = read_rgb8(path)
    assert found.dtype == torch.uint8
    assert found.shape == (3, 24, 32)
    assert (found.int() - expected.int()).abs().max() <= tolerance
    picture = read(path)
    assert same((picture.rgb * 255).round().byte(), found)
    assert (picture.alpha, picture.bits, picture.grey) == (None, 8, False)


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


def test_palette_grey_and_one_bit(tmp_path: Path) -> None:
    rgb = Image.fromarray(smooth())
    rgb.quantize(16).save(tmp_path / "palette.png")
    expected = np.asarray(rgb.quantize(16).convert("RGB"))
    assert np.array_equal(read_rgb8(tmp_path / "palette.png").permute(1, 2, 0).numpy(), expected)

    rgb.convert("L").save(tmp_path / "grey.png")
    grey = read(tmp_path / "grey.png")
    assert grey.grey
    assert grey.rgb.shape == (3, 24, 32)
    assert same(grey.rgb[0], grey.rgb[2])

    for name in ("bits.png", "bits.tif", "bits.bmp"):
        rgb.convert("1").save(tmp_path / name)
        bits = np.asarray(rgb.convert("1")).astype(np.uint8) * 255
        assert np.array_equal(read_rgb8(tmp_path / name)[1].numpy(), bits), name


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_read(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(smooth()).convert(mode)
    image.putalpha(Image.fromarray(smooth()[:, :, 1]))
    image.save(tmp_path / "alpha.png")
    picture = read(tmp_path / "alpha.png")
    assert picture.alpha is not None
    assert np.array_equal((picture.alpha[0] * 255).round().numpy(), smooth()[:, :, 1])
    assert picture.grey == (mode == "LA")
    assert len(read_rgb8(tmp_path / "alpha.png")) == 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(smooth()).save(path, exif=exif, quality=100, subsampling=0)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    found = read_rgb8(path).permute(1, 2, 0).numpy()
    assert found.shape == upright.shape
    assert np.abs(found - upright).max() <= 2
    write(read(path), tmp_path / "again.jpg")  # and not applied a second time
    assert read_rgb8(tmp_path / "again.jpg").shape[1:] == upright.shape[:2]


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


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    Image.fromarray(smooth()).save(tmp_path / "a.bmp")
    (tmp_path / "a.bmp").rename(tmp_path / "a.png")
    assert np.array_equal(read_rgb8(tmp_path / "a.png").permute(1, 2, 0).numpy(), smooth())


# Writing and reading back


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_lossless_round_trip(
    tmp_path: Path, suffix: str, bits: int, with_alpha: bool, grey: bool
) -> None:
    rgb = noise(bits, 1).repeat(3, 1, 1) if grey else noise(bits)
    picture = Picture(rgb, noise(bits, 1) if with_alpha else None, bits, grey)
    write(picture, tmp_path / f"out{suffix}")
    found = read(tmp_path / f"out{suffix}")
    assert (found.bits, found.grey) == (bits, grey)
    torch.testing.assert_close(found.rgb, rgb, rtol=0, atol=1e-6)
    if with_alpha:
        assert found.alpha is not None
        torch.testing.assert_close(found.alpha, picture.alpha, rtol=0, atol=1e-6)
    else:
        assert found.alpha is None


def test_bmp_round_trip(tmp_path: Path) -> None:
    for grey in (False, True):
        rgb = noise(8, 1).repeat(3, 1, 1) if grey else noise(8)
        write(Picture(rgb, grey=grey), tmp_path / "out.bmp")
        found = read(tmp_path / "out.bmp")
        torch.testing.assert_close(found.rgb, rgb, rtol=0, atol=1e-6)
        assert found.grey == grey


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".WEBP"])
def test_lossy_round_trip(tmp_path: Path, suffix: str) -> None:
    rgb = torch.from_numpy(smooth()).permute(2, 0, 1).float() / 255
    write(Picture(rgb), tmp_path / f"out{suffix}")
    assert (read(tmp_path / f"out{suffix}").rgb - rgb).abs().max() < 0.04


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_colour_profile_is_kept(tmp_path: Path, suffix: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(smooth()).save(tmp_path / "in.png", icc_profile=profile)
    picture = read(tmp_path / "in.png")
    assert picture.metadata.icc == profile
    write(picture, tmp_path / f"out{suffix}")
    assert read(tmp_path / f"out{suffix}").metadata.icc == profile


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_alpha_that_cannot_be_kept_is_said(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"out{suffix}"
    with caplog.at_level(logging.WARNING):
        write(Picture(noise(8), noise(8, 1)), path)
    assert f"{path}: {suffix} cannot hold transparency" in caplog.text
    assert read(path).alpha is None


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".webp"])
def test_depth_that_cannot_be_kept_is_said(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        write(Picture(noise(16), bits=16), tmp_path / f"out{suffix}")
    assert "16 bit was rounded" in caplog.text
    assert read(tmp_path / f"out{suffix}").bits == 8


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


def test_unreadable_pictures_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("not a picture\n" * 20)
    (tmp_path / "folder.png").mkdir()
    for name, message in [
        ("empty.png", r"empty\.png: the file is empty"),
        ("text.jpg", r"text\.jpg: cannot read this picture"),
        ("folder.png", r"folder\.png: is a folder"),
        ("missing.png", r"missing\.png: no such file"),
    ]:
        with pytest.raises(PictureError, match=message) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "bands", "message"),
    [(np.float32, 3, "channels of type float"), (np.uint8, 6, "6 channels; at most 4")],
)
def test_unknown_channels_are_errors(
    tmp_path: Path, kind: type[np.generic], bands: int, message: str
) -> None:
    path = tmp_path / "odd.tif"
    pyvips.Image.new_from_array(np.zeros((4, 4, bands), kind)).write_to_file(str(path))
    with pytest.raises(PictureError, match=message):
        read(path)


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

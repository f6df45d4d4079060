"""Folders with files of every kind: what is read is taken, the rest is counted and named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.batch.folders import files, lines, upscale

from pcsr_lightning import images

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8))


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "HEIF":
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(RGB).save(file, quality=-1)
    else:
        RGB.save(file, kind)
    return file.getvalue()


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    jpeg = encoded("JPEG")
    for name in ("a.jpg", "b.jfif", "c.JPE", "d.mpo", "sub/plain"):
        (folder / name).write_bytes(jpeg)
    (folder / "e.gif").write_bytes(encoded("GIF"))
    (folder / "png").write_bytes(encoded("PNG"))
    (folder / "f.jp2").write_bytes(encoded("JPEG2000"))
    (folder / "jpeg 2000").write_bytes(encoded("JPEG2000"))
    (folder / "i.heic").write_bytes(encoded("HEIF"))
    for name in ("g.txt", "h.txt", "sub/i.pdf", "notes", ".hidden.txt"):
        (folder / name).write_text("no picture")
    return folder


def test_every_kind(mixed: Path, tmp_path: Path) -> None:
    code, out, err = upscale(mixed, tmp_path / "out")
    assert (code, err) == (0, "")
    assert sorted(files(tmp_path / "out")) == [
        *("a.jpg", "b.jfif", "c.JPE", "d.jpg", "e.png", "i.png", "png.png", "sub/plain.jpg"),
    ]
    for name in files(tmp_path / "out"):
        assert images.read(tmp_path / "out" / name).rgb.shape == (3, 48, 40)
    total = out.splitlines().index(next(x for x in out.splitlines() if x.startswith("8 pictures")))
    assert " ".join(line.strip() for line in out.splitlines()[total + 1 :]) == (
        "left out, as no pictures that are read: 2 .txt, 2 without a suffix, "
        "1 .jp2 (JPEG 2000), 1 .pdf"
    )
    summary = lines(upscale(mixed, tmp_path / "out", "--json").out)[1]
    assert summary["left_out"] == {".txt": 2, "": 2, ".jp2": 1, ".pdf": 1}
    assert (summary["done"], summary["skipped"]) == (0, 8)


def test_every_kind_where_heic_cannot_be_read(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcsr_lightning.images.heic.find_spec", lambda _: None)
    code, out, err = upscale(mixed, tmp_path / "out")
    assert code == 1
    assert len(files(tmp_path / "out")) == 7
    assert "8 pictures: 7 done, 1 failed" in out
    assert err.startswith(f"error: {mixed / 'i.heic'}: HEIC needs the package pillow-heif")


def test_jpeg_2000_alone(tmp_path: Path) -> None:
    """The folder's error says what is there."""
    (tmp_path / "in").mkdir()
    for name in ("a.jp2", "b.JP2"):
        (tmp_path / "in" / name).write_bytes(encoded("JPEG2000"))
    code, _, err = upscale(tmp_path / "in", tmp_path / "out")
    assert code == 1
    assert err.endswith("; found 2 .jp2 (JPEG 2000)\n")
    code, _, err = upscale(tmp_path / "in" / "a.jp2", tmp_path / "out.png")
    assert code == 1
    assert "cannot read this picture (a JPEG 2000 file)" in err


def test_a_pattern_counts_what_it_matches(mixed: Path, tmp_path: Path) -> None:
    _, out, _ = upscale(mixed / "?.[gjt]*", tmp_path / "out", "--json")
    assert lines(out)[1]["left_out"] == {".txt": 2, ".jp2": 1}


def test_heic_photographs(tmp_path: Path) -> None:
    """With their metadata, and upright: EXIF's orientation has been applied already."""
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    file = heif.from_pillow(RGB.resize((40, 24)))
    file.save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())
    turned = images.read(tmp_path / "a.heic")
    assert turned.rgb.shape == (3, 40, 24)  # libheif was told of the orientation, too
    straight = np.asarray(RGB.resize((40, 24)).rotate(-90, expand=True), np.float32) / 255
    assert np.abs(turned.rgb.permute(1, 2, 0).numpy() - straight).mean() < 0.08
    assert upscale(tmp_path / "a.heic", "--scale", 2)[0] == 0
    with Image.open(tmp_path / "a_x2.png") as image:
        assert image.size == (48, 80)
        assert image.getexif()[0x010F] == "maker"
        assert image.getexif().get(0x0112, 1) == 1


def test_heic_of_ten_bits(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    values = np.linspace(0, 65535, 64 * 48 * 3).astype(np.uint16).reshape(48, 64, 3)
    heif.encode("RGB;16", (64, 48), values.tobytes(), tmp_path / "a.heic", quality=-1)
    found = images.read(tmp_path / "a.heic")
    assert found.bits == 16
    assert float(found.rgb.max()) == pytest.approx(1.0, abs=2e-3)
    error = found.rgb.permute(1, 2, 0).numpy() - values / 65535
    assert np.abs(error).max() < 0.02


def test_heic_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    monkeypatch.setattr("pcsr_lightning.images.heic.find_spec", lambda _: None)
    code, _, err = upscale(tmp_path / "a.heic")
    assert code == 1
    assert err.endswith("a.heic: HEIC needs the package pillow-heif: pip install pillow-heif\n")

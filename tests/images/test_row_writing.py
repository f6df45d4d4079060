"""Pictures written row by row: the same files as those written at once, and none that is half."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import (
    Metadata,
    Picture,
    decode,
    encode,
    encoded_by_rows,
    outline,
    read,
    write,
    written_by_rows,
)
from pcsr_lightning.images.picture import floats

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'


def by_rows(picture: Picture, path: Path, steps: int = 7) -> None:
    height, width = picture.rgb.shape[-2:]
    with written_by_rows(outline(picture, (height, width)), path) as put:
        for top in range(0, height, steps):
            alpha = None if picture.alpha is None else picture.alpha[:, top : top + steps]
            put(picture.rgb[:, top : top + steps], alpha)


def whole(seed: int, bits: int, shape: tuple[int, int, int] = (3, 45, 31)) -> Tensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * (2**bits - 1)
    return values.round().to(torch.uint8 if bits == 8 else torch.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".bmp", ".webp", ".avif"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("alpha", ["none", "opaque", "any"])
def test_the_same_file(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    suffix: str,
    bits: int,
    grey: bool,
    alpha: str,
) -> None:
    """As `write` makes of the whole picture, with the same warnings."""
    share = {"none": None, "opaque": torch.ones(1, 45, 31)}.get(alpha, whole(1, bits, (1, 45, 31)))
    resolution = None if alpha == "opaque" else (10.0, 12.0)
    picture = Picture(
        whole(0, bits), share, bits, grey, metadata=Metadata(xmp=XMP, resolution=resolution)
    )
    found = []
    for make in (write, by_rows):
        caplog.clear()
        make(picture, tmp_path / f"out{suffix}")
        found.append(((tmp_path / f"out{suffix}").read_bytes(), sorted(caplog.messages)))
    assert found[0] == found[1]


@pytest.mark.parametrize("format", ["png", "jpg", "tif", "bmp"])
def test_a_stream_gets_the_same_and_nothing_before_the_end(format: str) -> None:
    picture, stream = Picture(whole(0, 8), whole(1, 8, (1, 45, 31))), io.BytesIO()
    with encoded_by_rows(outline(picture, (45, 31)), format, stream) as put:
        for top in range(0, 45, 5):
            assert picture.alpha is not None
            put(picture.rgb[:, top : top + 5], picture.alpha[:, top : top + 5])
            assert stream.getvalue() == b""
    assert stream.getvalue() == encode(picture, format)


def test_a_stream_gets_nothing_of_a_picture_that_fails() -> None:
    picture, stream = Picture(whole(0, 8)), io.BytesIO()
    facts = outline(picture, (45, 31))

    def interrupted() -> None:
        with encoded_by_rows(facts, "png", stream) as put:
            put(picture.rgb[:, :40])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with (
        pytest.raises(PictureError, match=r"^standard output: .* \(5 rows are missing\)"),
        encoded_by_rows(facts, "png", stream) as put,
    ):
        put(picture.rgb[:, :40])
    with (
        pytest.raises(PictureError, match="alpha goes with all rows"),
        encoded_by_rows(facts, "bmp", stream) as put,
    ):
        put(picture.rgb[:, :40], torch.ones(1, 40, 31))
    assert stream.getvalue() == b""


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".bmp", ".webp", ".avif"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("grey", [False, True])
def test_whole_numbers_are_the_floats(tmp_path: Path, suffix: str, bits: int, grey: bool) -> None:
    """Read as they are in the file, and floating point to the last bit once they are made so."""
    path = tmp_path / f"in{suffix}"
    write(Picture(whole(0, bits), whole(1, bits, (1, 45, 31)), bits, grey), path)
    usual, lean, decoded = (
        read(path),
        read(path, as_integers=True),
        decode(path.read_bytes(), as_integers=True),
    )
    assert usual.rgb.dtype == torch.float32
    for picture in (lean, decoded):
        assert picture.rgb.dtype == (torch.uint8 if picture.bits == 8 else torch.uint16)
        assert (picture.bits, picture.grey) == (usual.bits, usual.grey)
        assert torch.equal(floats(picture.rgb), usual.rgb)
        assert (picture.alpha is None) == (usual.alpha is None)
        if picture.alpha is not None and usual.alpha is not None:
            assert torch.equal(floats(picture.alpha), usual.alpha)


def test_every_whole_number_as_numpy_divides_it() -> None:
    for dtype, top in ((torch.uint8, 255), (torch.uint16, 65535)):
        values = torch.arange(top + 1).to(dtype)
        expected = values.numpy() / np.float32(top)
        assert expected.dtype == np.float32
        assert np.array_equal(floats(values).numpy(), expected)


def test_an_interrupt_passes_through_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    path.write_text("older")
    picture = Picture(whole(1, 8, (3, 4000, 500)))

    def interrupted() -> None:
        with written_by_rows(outline(picture, (4000, 500)), path) as put:
            put(picture.rgb[:, :900])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]
    assert not [t for t in threading.enumerate() if t.name == "encoder"]


def test_errors_of_the_block_are_not_the_writer_s(tmp_path: Path) -> None:
    error = BrokenPipeError("whoever reads our output has left")
    picture = Picture(whole(2, 8))
    with (
        pytest.raises(BrokenPipeError) as caught,
        written_by_rows(outline(picture, (45, 31)), tmp_path / "out.tif"),
    ):
        raise error
    assert caught.value is error
    assert not list(tmp_path.iterdir())


def test_missing_rows_are_no_picture(tmp_path: Path) -> None:
    picture = Picture(whole(3, 8))
    with (
        pytest.raises(PictureError, match="5 rows are missing"),
        written_by_rows(outline(picture, (45, 31)), tmp_path / "out.png") as put,
    ):
        put(picture.rgb[:, :40])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_full_disk_ends_both_sides(suffix: str) -> None:
    """Where each write fails as on a full disk, the rows' giver hears of it and nothing hangs."""
    from pcsr_lightning.images.encoding import Encoder
    from pcsr_lightning.images.formats import format_named

    picture = Picture(whole(4, 8, (3, 3000, 1000)))
    with Path("/dev/full").open("r+b", buffering=0) as file:
        encoder = Encoder(outline(picture, (3000, 1000)), file, format_named(suffix), None, "out")

        def give() -> None:
            for top in range(0, 3000, 10):
                encoder.put(picture.rgb[:, top : top + 10])
            encoder.finish()

        try:
            with pytest.raises(PictureError, match=r"out: cannot write this picture"):
                give()
        finally:
            encoder.abandon()

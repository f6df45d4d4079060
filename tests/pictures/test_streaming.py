"""Pictures written row by row: the same files as those written at once, and none that is half."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pcsr_lightning.errors import PictureError
from pcsr_lightning.pictures import Picture, outline, write, written_by_rows

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'


def by_rows(picture: Picture, path: Path, steps: int = 7) -> None:
    height, width = picture.rgb.shape[-2:]
    with written_by_rows(outline(picture, (height, width)), path) as put:
        for top in range(0, height, steps):
            put(picture.rgb[:, top : top + steps])


def whole(seed: int, bits: int, shape: tuple[int, int, int] = (3, 45, 31)) -> Tensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * (2**bits - 1)
    return values.round().to(torch.uint8 if bits == 8 else torch.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("grey", [False, True])
def test_the_same_file(tmp_path: Path, suffix: str, bits: int, grey: bool) -> None:
    picture = Picture(whole(0, bits), None, bits, grey, xmp=XMP, resolution=(10.0, 12.0))
    write(picture, tmp_path / f"a{suffix}")
    by_rows(picture, tmp_path / f"b{suffix}")
    a, b = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert a == b


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
    from pcsr_lightning.pictures.formats import format_named
    from pcsr_lightning.pictures.streaming import _Encoder

    picture = Picture(whole(4, 8, (3, 3000, 1000)))
    with Path("/dev/full").open("r+b", buffering=0) as file:
        encoder = _Encoder(outline(picture, (3000, 1000)), file, format_named(suffix), None, "out")

        def give() -> None:
            for top in range(0, 3000, 10):
                encoder.put(picture.rgb[:, top : top + 10])
            encoder.finish()

        try:
            with pytest.raises(PictureError, match=r"out: cannot write this picture"):
                give()
        finally:
            encoder.abandon()

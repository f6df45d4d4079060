"""The picture cache: right pixels, whole or not at all, rebuilt when the folder changes."""

import hashlib
import json
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from pcsr_lightning.atomic_io import default_cache_folder
from pcsr_lightning.data import picture_cache
from pcsr_lightning.data.picture_cache import PictureCache
from pcsr_lightning.errors import DataError
from pcsr_lightning.images import bicubic, list_pictures, read_rgb8


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_holds_every_picture_at_every_scale(folder: Path, tmp_path: Path) -> None:
    files = list_pictures(folder)
    cache = PictureCache.build(files, tmp_path / "cache", root=folder)
    assert [p.source for p in cache.pictures[::5]] == ["a.png", "c.png", "sub/b.bmp"]
    assert [(p.height, p.width) for p in cache.pictures[:5]] == [
        (200, 256),
        (180, 230),
        (160, 205),
        (140, 179),
        (120, 154),
    ]
    for number, at in enumerate(cache.pictures):
        full = read_rgb8(folder / at.source)
        shrunk = bicubic(full.double(), (at.height, at.width)).round().clamp(0, 255)
        found = torch.from_numpy(cache.pixels(number).copy()).permute(2, 0, 1).double()
        # float32 against float64: a value at a rounding edge may fall to either side
        assert (found - shrunk).abs().max() <= (0 if at.scale == 1 else 1)
        assert (found != shrunk).double().mean() < 1e-3


def test_opens_what_was_built_and_survives_pickling(folder: Path, tmp_path: Path) -> None:
    built = PictureCache.build(list_pictures(folder), tmp_path / "cache", (1.0, 0.5))
    opened = PictureCache.open(tmp_path / "cache")
    opened.pixels(0)
    message = pickle.dumps(opened)
    assert len(message) < 10_000  # the memory map is not in it
    for cache in (opened, pickle.loads(message)):
        assert cache.pictures == built.pictures
        assert np.array_equal(cache.pixels(3), built.pixels(3))
    assert not opened.pixels(0).flags.writeable


def test_unreadable_pictures_are_skipped_and_remembered(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.png").write_bytes(b"nonsense")
    cache = PictureCache.build(list_pictures(folder), tmp_path / "cache", root=folder)
    assert list(cache.unreadable) == ["broken.png"]
    assert "broken.png: cannot read" in cache.unreadable["broken.png"]
    assert PictureCache.open(tmp_path / "cache").unreadable == cache.unreadable
    assert len(cache.pictures) == 15


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"None of the 2 pictures can be read.*a\.png"):
        PictureCache.build(list_pictures(tmp_path), tmp_path / "cache", root=tmp_path)
    assert not (tmp_path / "cache").exists()
    assert leftovers(tmp_path) == []


def test_a_changed_folder_is_built_anew(folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "caches"

    def opened() -> PictureCache:
        return PictureCache.open_or_build(list_pictures(folder), folder, base)

    first = opened()
    stamp = (first.folder / "pixels.u8").stat().st_mtime_ns
    assert opened().folder == first.folder
    assert (first.folder / "pixels.u8").stat().st_mtime_ns == stamp  # not built twice
    os.utime(folder / "a.png", ns=(0, 0))
    touched = opened()
    assert touched.folder != first.folder
    (folder / "a.png").unlink()
    assert len(opened().pictures) == 10
    other = PictureCache.open_or_build(list_pictures(folder), folder, base, (1.0,))
    assert len(other.pictures) == 2


@pytest.mark.parametrize("damage", ["cut", "version", "garbage"])
def test_damaged_caches(
    folder: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = list_pictures(folder)
    cache = PictureCache.open_or_build(files, folder, tmp_path / "caches")
    index_file = cache.folder / "index.json"
    if damage == "cut":
        with (cache.folder / "pixels.u8").open("r+b") as pixels:
            pixels.truncate(1000)
    elif damage == "version":
        index = json.loads(index_file.read_text())
        index_file.write_text(json.dumps({**index, "version": 0}))
    else:
        index_file.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        PictureCache.open(cache.folder)
    again = PictureCache.open_or_build(files, folder, tmp_path / "caches")
    assert again.pictures == cache.pictures
    assert "Rebuilding it" in caplog.text


def test_opening_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no picture cache here"):
        PictureCache.open(tmp_path)


def test_an_interrupted_build_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path) -> torch.Tensor:
        if path.name == "c.png":
            raise KeyboardInterrupt
        return read_rgb8(path)

    monkeypatch.setattr(picture_cache, "read_rgb8", interrupted)
    with pytest.raises(KeyboardInterrupt):
        PictureCache.build(list_pictures(folder), tmp_path / "caches" / "cache")
    assert list((tmp_path / "caches").iterdir()) == []


def test_two_builds_at_once_end_in_one_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_started = threading.Barrier(2, timeout=20)

    def together(path: Path) -> torch.Tensor:
        if path.name == "a.png":
            both_started.wait()
        return read_rgb8(path)

    monkeypatch.setattr(picture_cache, "read_rgb8", together)
    built: list[PictureCache] = []

    def build() -> None:
        built.append(PictureCache.build(list_pictures(folder), tmp_path / "caches" / "cache"))

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 2
    assert built[0].pictures == built[1].pictures
    assert [path.name for path in (tmp_path / "caches").iterdir()] == ["cache"]


def test_a_folder_that_cannot_be_written_is_an_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write the picture cache.*data\.cache_dir=DIR"):
        PictureCache.build(list_pictures(folder), tmp_path / "file" / "cache")


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "pcsr_lightning"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / ".cache" / "pcsr_lightning"


def test_the_files_behind_a_cache_are_known_by_their_content(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = list_pictures(folder)
    cache = PictureCache.open_or_build(files, folder, tmp_path, (1.0,))
    expected = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("a.png", "c.png", "sub/b.bmp")
    }
    assert cache.digests == expected
    # of a cache that an earlier version has built, too; and read once only
    (cache.folder / "digests.json").unlink()
    assert PictureCache.open_or_build(files, folder, tmp_path, (1.0,)).digests == expected
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert PictureCache.open_or_build(files, folder, tmp_path, (1.0,)).digests == expected

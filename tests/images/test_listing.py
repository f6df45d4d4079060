"""Which files of a folder are pictures."""

from pathlib import Path

import pytest

from pcsr_lightning.errors import PictureError
from pcsr_lightning.images import list_pictures


def test_list_pictures(tmp_path: Path) -> None:
    for name in ["b.PNG", "a.jpg", "sub/c.TiFf", "sub/deep/d.webp", "notes.txt", ".hidden.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_pictures(tmp_path)]
    assert found == ["a.jpg", "b.PNG", "sub/c.TiFf", "sub/deep/d.webp"]


def test_list_pictures_errors(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(PictureError, match=r"no picture in this folder .*\.png, \.jpg.*\.tiff"):
        list_pictures(tmp_path)
    with pytest.raises(PictureError, match=r"notes\.txt: not a folder"):
        list_pictures(tmp_path / "notes.txt")
    with pytest.raises(PictureError, match=r"nowhere: no such folder.*\.webp"):
        list_pictures(tmp_path / "nowhere")

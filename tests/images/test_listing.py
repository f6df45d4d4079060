"""Which files of a folder are pictures."""

import logging
import os
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


def listed(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_pictures(folder)]


@pytest.fixture
def six(tmp_path: Path) -> Path:
    for n in range(6):
        path = tmp_path / "pics" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path / "pics"


NAMES = [f"{n}.png" for n in range(6)]


def test_each_real_file_once(six: Path, tmp_path: Path) -> None:
    (six / "self").symlink_to(".")
    (six / "0-up").symlink_to("..")
    (six / "0-alias.png").symlink_to("3.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").touch()
    (tmp_path / "elsewhere" / "back").symlink_to(six)
    (tmp_path / "elsewhere" / "0.png").symlink_to(six / "0.png")
    (six / "linked").symlink_to(tmp_path / "elsewhere")
    assert listed(six) == ["0-up/elsewhere/x.png", *NAMES]
    (six / "0-up").unlink()
    assert listed(six) == [*NAMES, "linked/x.png"]


def test_a_link_to_a_file_of_another_suffix_is_a_picture(six: Path) -> None:
    """As the caches of git-annex and of the Hub keep files."""
    (six / "blobs").mkdir()
    (six / "blobs" / "0a1b").touch()
    (six / "a.png").symlink_to("blobs/0a1b")
    (six / "b.png").symlink_to("a.png")
    assert listed(six) == [*NAMES, "a.png"]


@pytest.mark.parametrize(
    "junk",
    [".ipynb_checkpoints", ".thumbnails", "@eaDir", "@EADIR", "__MACOSX", "#recycle", "@Recycle",
     "$RECYCLE.BIN", "System Volume Information", "lost+found"],
)  # fmt: skip
def test_folders_of_other_programs_are_left_out(six: Path, junk: str) -> None:
    for folder in (six / junk, six / "sub" / junk / "deep"):
        folder.mkdir(parents=True)
        (folder / "0-checkpoint.png").touch()
    assert listed(six) == NAMES
    assert listed(six / junk) == ["0-checkpoint.png"]  # asked for by name


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_said(
    six: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (six / "sub").mkdir(mode=0)
    with caplog.at_level(logging.WARNING):
        assert listed(six) == NAMES
    assert "sub is left out: cannot be listed" in caplog.text


def test_an_empty_name_is_not_the_current_folder() -> None:
    with pytest.raises(PictureError, match="is empty: name a folder"):
        list_pictures("")


def test_list_pictures_errors(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(PictureError, match=r"no picture in this folder .*\.png, \.jpg.*\.tiff"):
        list_pictures(tmp_path)
    with pytest.raises(PictureError, match=r"notes\.txt: not a folder"):
        list_pictures(tmp_path / "notes.txt")
    with pytest.raises(PictureError, match=r"nowhere: no such folder.*\.webp"):
        list_pictures(tmp_path / "nowhere")

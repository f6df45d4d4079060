"""Which files a command line means."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcsr_lightning.batch.inputs import Inputs, find_inputs
from pcsr_lightning.errors import PictureError

SUFFIXES = (".png", ".jpg")
"""Of those that are read, the ones that occur here."""


def find(*words: object, without: tuple[Path, ...] = ()) -> Inputs:
    return find_inputs([str(word) for word in words], without)


def places(inputs: Inputs) -> list[str]:
    return [str(found.place) for found in inputs.found]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    for name, said in (
        ("loop.png", "its symbolic link leads nowhere, or in a circle"),
        ("gone.png", "its symbolic link leads nowhere, or in a circle"),
        ("none.png", "no such file or folder"),
        ("x" * 300 + ".png", "File name too long"),
    ):
        with pytest.raises(PictureError) as caught:
            find(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {said}"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    touch(
        tmp_path,
        *("b.png", "a.JPG", "text.txt", ".hidden.png", ".a.JPG.12-ab.tmp", ".b.png.claim"),
        *("sub/c.png", "sub/deep/d.jpg", ".cache/e.png", "sub/deep/noise"),
    )
    return tmp_path


def test_a_folder_keeps_its_tree(tree: Path) -> None:
    inputs = find(tree)
    assert places(inputs) == ["a.JPG", "b.png", "sub/c.png", "sub/deep/d.jpg"]
    assert inputs.folder == tree
    assert all(tree / found.place == found.path for found in inputs.found)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["a.JPG", "b.png"]),
        ("*.png", ["b.png"]),
        ("**/*.png", ["b.png", "sub/c.png"]),
        ("**", ["a.JPG", "b.png", "sub/c.png", "sub/deep/d.jpg"]),
        ("sub/**", ["c.png", "deep/d.jpg"]),
        ("*/?.png", ["sub/c.png"]),
        ("**/deep/*", ["sub/deep/d.jpg"]),
        ("[ab].*", ["a.JPG", "b.png"]),
        ("s*/**/*.jpg", ["sub/deep/d.jpg"]),
    ],
)
def test_patterns(tree: Path, pattern: str, expected: list[str]) -> None:
    assert places(find(tree / pattern)) == expected


parts = st.sampled_from(["*", "**", "?", "a", "b*", "[ab]", "*.png", "a.png", "?.jpg"])


@given(st.lists(parts, min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_patterns_mean_what_glob_says(tmp_path: Path, pattern: list[str]) -> None:
    touch(tmp_path, "a.png", "b.jpg", "a/a.png", "a/b/c.jpg", "b/a/a/a.png", "b/bb/b.png", "b/t")
    expected = {
        path
        for path in glob.glob(str(tmp_path / Path(*pattern)), recursive=True)  # noqa: PTH207
        if not path.endswith("/") and Path(path).is_file() and Path(path).suffix in SUFFIXES
    }
    if any(letter in part for part in pattern for letter in "*?["):
        try:
            found = {str(one.path) for one in find(tmp_path / Path(*pattern)).found}
        except PictureError:
            found = set()
        assert found == expected


def test_a_name_with_brackets_is_a_name_first(tmp_path: Path) -> None:
    touch(tmp_path, "[a].png", "a.png")
    assert places(find(tmp_path / "[a].png")) == ["[a].png"]
    assert find(tmp_path / "[a].png").single


def test_several_words_and_none_twice(tree: Path) -> None:
    inputs = find(tree / "b.png", tree / "*.png", f"{tree}/sub/../b.png", tree / "sub")
    assert places(inputs) == ["b.png", "sub/c.png", "sub/deep/d.jpg"]
    assert not inputs.single
    assert inputs.folder is None


def test_a_file_named_outright_is_taken_whatever_its_suffix(tree: Path) -> None:
    assert places(find(tree / "text.txt")) == ["text.txt"]
    assert places(find(tree / ".hidden.png")) == [".hidden.png"]


def test_the_output_folder_inside_is_left_out(tree: Path) -> None:
    assert places(find(tree, without=(tree / "sub",))) == ["a.JPG", "b.png"]
    assert places(find(tree / "**/*.png", without=(tree / "sub",))) == ["b.png"]
    # It may be the input folder itself.
    assert len(find(tree, without=(tree,)).found) == 4


def test_links(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    touch(elsewhere, "x.png", "more/y.png")
    (elsewhere / "back").symlink_to(tree)
    (tree / "0-loop").symlink_to(tree)
    (tree / "sub" / "up").symlink_to("..")
    (tree / "0-deep").symlink_to("sub/deep")
    (tree / "linked").symlink_to(elsewhere)
    (tree / "self").symlink_to("self")
    (tree / "self.png").symlink_to("self.png")
    (tree / "alias.png").symlink_to("b.png")
    (tree / "broken.png").symlink_to("nowhere.png")
    inputs = find(tree)
    assert places(inputs) == [
        *("a.JPG", "b.png", "broken.png", "linked/more/y.png", "linked/x.png"),
        *("self.png", "sub/c.png", "sub/deep/d.jpg"),
    ]
    assert inputs.doubles == [(tree / "alias.png", tree / "b.png")]
    # A pattern that means the link alone finds it.
    assert places(find(tree / "al*.png")) == ["alias.png"]


def test_folders_of_other_programs_are_left_out(tree: Path) -> None:
    touch(tree, "@eaDir/b.png", "sub/#recycle/c.png", "__MACOSX/b.png", ".thumbnails/b.png")
    assert places(find(tree)) == ["a.JPG", "b.png", "sub/c.png", "sub/deep/d.jpg"]
    assert places(find(tree / "**/*.png")) == ["b.png", "sub/c.png"]
    assert places(find(tree / "@eaDir")) == ["b.png"]  # asked for by name


def test_a_thicket_of_links_takes_no_time(tmp_path: Path) -> None:
    """Ten folders that all link to each other: 10! ways through them."""
    for i in range(10):
        touch(tmp_path, f"{i}/p.png")
        for j in range(10):
            (tmp_path / str(i) / f"to{j}").symlink_to(tmp_path / str(j))
    assert places(find(tmp_path)) == [f"{i}/p.png" for i in range(10)]
    assert places(find(tmp_path / "**/*.png")) == [f"{i}/p.png" for i in range(10)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_told(tree: Path) -> None:
    (tree / "sub").chmod(0)
    try:
        inputs = find(tree)
    finally:
        (tree / "sub").chmod(0o755)
    assert places(inputs) == ["a.JPG", "b.png"]
    assert [(path.name, "cannot be listed" in why) for path, why in inputs.unreadable] == [
        ("sub", True)
    ]


def test_a_folder_that_vanishes_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan: Callable[[Path], object] = os.scandir

    def vanish(folder: Path) -> object:
        if folder.name == "deep":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", vanish)
    inputs = find(tree)
    assert places(inputs) == ["a.JPG", "b.png", "sub/c.png"]
    assert inputs.unreadable == [
        (tree / "sub/deep", "cannot be listed (Permission denied)"),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.png"], "missing.png: no such file"),
        (["missing/*.png"], "there is no folder .*missing"),
        (["*.bmp"], "no picture matches"),
        (["*.txt"], "no picture matches; 1 other files do"),
        ([".cache/empty"], "no picture in this folder"),
        (["b.png", "-"], "standard input is one picture"),
    ],
)
def test_refusals(tree: Path, words: list[str], said: str) -> None:
    (tree / ".cache/empty").mkdir()
    with pytest.raises(PictureError, match=said):
        find(*(word if word == "-" else tree / word for word in words))


def test_standard_input() -> None:
    inputs = find("-")
    assert inputs.single
    assert [str(found.path) for found in inputs.found] == ["-"]

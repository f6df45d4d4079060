"""Where results go, and what is refused before any work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from pcsr_lightning.batch.inputs import find_inputs
from pcsr_lightning.batch.outputs import Job, OutputOptions, plan_jobs
from pcsr_lightning.errors import PCSRError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    return tmp_path / "in"


def plan(
    words: Sequence[str],
    out: str | None,
    name_suffix: str | None = None,
    format: str | None = None,
    class_map: str | None = None,
    overwrite: bool = False,
) -> list[Job]:
    options = OutputOptions(
        out,
        name_suffix,
        "_x4",
        format,
        None if class_map is None else Path(class_map),
        overwrite,
        SUFFIXES,
    )
    return plan_jobs(find_inputs(words, options.folders), options)


def targets(*args: object, **options: object) -> dict[str, str]:
    return {str(job.source): str(job.target) for job in plan(*args, **options)}  # type: ignore[arg-type]


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)


def test_names_that_cannot_be_written(here: Path) -> None:
    touch("a.png", "b.jpg")
    Path("loop.png").symlink_to("loop.png")
    for out, said in (
        ("loop.png", "cannot be made there .Too many levels of symbolic links"),
        ("x" * 300 + ".png", "cannot be made there .File name too long"),
        ("b.jpg/c.png", "b.jpg is a file, not a folder"),
    ):
        with pytest.raises(PCSRError, match=f"^{out}: {said}"):
            plan(["a.png"], out)


def test_one_file(here: Path) -> None:
    touch("a.png", "done/x", "b.gif")
    assert targets(["a.png"], "b.jpg") == {"a.png": "b.jpg"}
    assert targets(["a.png"], None) == {"a.png": "a_x4.png"}
    assert targets(["./a.png"], None, name_suffix="-big") == {"a.png": "a-big.png"}
    assert targets(["a.png"], None, format=".jpg") == {"a.png": "a_x4.jpg"}
    assert targets(["a.png"], "done") == {"a.png": "done/a.png"}
    assert targets(["a.png"], "new/") == {"a.png": "new/a.png"}
    assert targets(["a.png"], "new/", name_suffix="_2", format=".tif") == {"a.png": "new/a_2.tif"}
    assert targets(["a.png"], "-") == {"a.png": "-"}
    assert targets(["-"], "b.jpg") == {"-": "b.jpg"}
    assert targets(["-"], None) == {"-": "-"}
    # A format that can be read but not written.
    assert targets(["b.gif"], None) == {"b.gif": "b_x4.png"}


def test_a_folder(here: Path) -> None:
    touch("p/a.JPEG", "p/sub/b.png")
    for out in ("o", "o/", "./o"):
        assert targets(["p"], out) == {"p/a.JPEG": "o/a.JPEG", "p/sub/b.png": "o/sub/b.png"}
    assert targets(["p/"], None) == {"p/a.JPEG": "p_x4/a.JPEG", "p/sub/b.png": "p_x4/sub/b.png"}
    assert set(targets(["p"], "o", name_suffix="_x4", format=".jpg").values()) == {
        "o/a_x4.JPEG",
        "o/sub/b_x4.jpg",
    }
    os.chdir("p")
    assert targets(["."], None) == {
        "a.JPEG": str(here / "p_x4/a.JPEG"),
        "sub/b.png": str(here / "p_x4/sub/b.png"),
    }


def test_a_folder_inside_the_input(here: Path) -> None:
    touch("p/a.png", "p/large/a.png")
    assert targets(["p"], "p/large") == {"p/a.png": "p/large/a.png"}


def test_patterns_and_lists(here: Path) -> None:
    touch("p/a.png", "p/sub/b.png", "q/c.png")
    assert set(targets(["p/**/*.png"], "o").values()) == {"o/a.png", "o/sub/b.png"}
    assert set(targets(["p/**/*.png"], None).values()) == {"p/a_x4.png", "p/sub/b_x4.png"}
    assert set(targets(["p/a.png", "q/c.png"], "o").values()) == {"o/a.png", "o/c.png"}
    assert set(targets(["p", "q"], "o").values()) == {"o/p/a.png", "o/p/sub/b.png", "o/q/c.png"}


def test_class_maps(here: Path) -> None:
    touch("p/a.jpg", "p/sub/b.png")
    jobs = plan(["p"], "o", class_map="maps")
    assert [str(job.class_map) for job in jobs] == ["maps/a.png", "maps/sub/b.png"]
    assert str(plan(["p/a.jpg"], None, class_map="m.png")[0].class_map) == "m.png"


def refused(jobs: list[Job]) -> dict[str, str]:
    return {str(job.source): job.refused for job in jobs if job.refused is not None}


def test_a_clash_refuses_its_pair_and_not_the_folder(here: Path) -> None:
    touch("p/a.jpg", "p/a.png", "p/b.png", "p/c.png")
    assert refused(plan(["p"], "o", format=".tif")) == {
        "p/a.jpg": "p/a.jpg: would become o/a.tif, and so would p/a.png; rename one, or upscale "
        "them into two folders",
        "p/a.png": "p/a.png: would become o/a.tif, and so would p/a.jpg; rename one, or upscale "
        "them into two folders",
    }
    # Maps of the classes are PNG files, whatever the pictures are.
    assert list(refused(plan(["p"], "o", class_map="m"))) == ["p/a.jpg", "p/a.png"]


def test_an_output_that_is_an_input_refuses_one_picture(here: Path) -> None:
    touch("p/a.png", "p/b.png", "o/c.png")
    Path("o/b.png").symlink_to("../p/a.png")
    assert refused(plan(["p"], "o")) == {
        "p/b.png": "o/b.png: is the input p/a.png; choose another name for the output"
    }
    # Two links to one file would be written one over the other.
    Path("o/b.png").unlink()
    Path("o/a.png").symlink_to("c.png")
    Path("o/b.png").symlink_to("c.png")
    touch("p/d.png")
    assert list(refused(plan(["p"], "o", overwrite=True))) == ["p/a.png", "p/b.png"]


def test_own_results_are_not_inputs(here: Path) -> None:
    touch("a.png", "b.png", "a_x4.png", "b_x4.png")
    assert targets(["*.png"], None) == {"a.png": "a_x4.png", "b.png": "b_x4.png"}
    assert targets(["."], ".", name_suffix="_x4") == {"a.png": "a_x4.png", "b.png": "b_x4.png"}


@pytest.mark.parametrize(
    ("words", "out", "options", "said"),
    [
        (["p"], "o", {"format": ".png"}, "p/a.jpg: would become o/a.png, and so would p/a.png"),
        (["p/a.png", "q/a.png"], "o", {}, "p/a.png: would become o/a.png, and so would q/a.png"),
        (["p"], "p", {}, "p/a.jpg: is the input itself"),
        (["p/a.png"], "p", {}, "p/a.png: is the input itself"),
        (["p/a.png"], "q/../p/a.png", {}, "is the input itself"),
        (["p/a.png"], "hard.png", {}, "is the input itself"),
        (["p/a.png"], "soft.png", {}, "is the input itself"),
        (["p/a.png"], None, {"name_suffix": ""}, "is the input itself"),
        (["q"], "o", {"class_map": "o"}, "class map would overwrite"),
        (["p/a.png"], "o.png", {"class_map": "o.png"}, "class map would overwrite"),
        (["p/a.png"], "o.png", {"class_map": "hard.png"}, "is the input itself"),
        (["p"], "q/a.png", {}, "q/a.png: is a file; several pictures need a folder"),
        (["p"], "o", {"class_map": "q/a.png"}, "is a file; --class-map needs a folder"),
        (["p"], "q/a.png/o", {}, "q/a.png/o: cannot make files in"),
        (["p"], "-", {}, "standard output takes one picture"),
        (["-"], "p/", {}, "has no name; name the output file"),
        (["p/a.png"], "new/o.png", {}, "mkdir -p new"),
        (["p/a.png"], "o", {}, "suffix chooses the format"),
        (["p/a.png"], "o.png", {"format": ".jpg"}, "two formats"),
        (["p/a.png"], "o.png", {"name_suffix": "_x4"}, "OUT is the name"),
        (["p"], "o", {"name_suffix": "/../x"}, "cannot hold a /"),
        (["*.png"], None, {"overwrite": True}, "s_x4.png: is an input, and --overwrite would"),
    ],
)
def test_refusals(
    here: Path, words: list[str], out: str | None, options: dict[str, object], said: str
) -> None:
    touch("p/a.png", "p/a.jpg", "q/a.png", "s.png", "s_x4.png")
    Path("hard.png").hardlink_to("p/a.png")
    Path("soft.png").symlink_to("p/a.png")
    before = {path: path.read_bytes() for path in here.rglob("*.*")}
    with pytest.raises(PCSRError) as refusal:
        plan(words, out, **options)  # type: ignore[arg-type]
    assert said in str(refusal.value)
    assert {path: path.read_bytes() for path in here.rglob("*.*")} == before

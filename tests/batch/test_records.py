"""Results know how they were made: other settings make them again, the same do not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.batch.folders import MULTI, files, fill, lines, upscale

from pcsr_lightning.batch.records import RECORD_NAME, write_record


def run(folder: Path, *words: object) -> tuple[list[str], dict[str, int]]:
    """Each picture's status, and the summary."""
    code, out, err = upscale(folder / "in", folder / "out", "--json", *words)
    assert (code, err) == (0, "")
    found, summary = lines(out)
    return [one["status"] for one in found], summary


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        ([], ["--scale", 2], "size x2 instead of x4"),
        ([], ["--size", "30x40"], "size 30x40 instead of x4"),
        (["--size", "30x40"], ["--size", "30x40", "--exact"], "size 30x40 exactly instead of"),
        ([], ["--adaptive"], "routing adaptive instead of k = 0"),
        (["--k", 1], ["--k", 0], "routing k = 0 instead of k = 1"),
        ([], ["--no-refine"], "refinement off instead of by the scale"),
        ([], ["--quality", 50], "quality 50 instead of the usual"),
        (MULTI, ["--model", "fsrcnn-pcsr-x4"], "model fsrcnn-pcsr-x4 instead of carn-pcsr-multi"),
        (["--class-map", "a"], ["--class-map", "b"], "its class map is missing"),
    ],
)
def test_other_settings_make_a_result_again(
    tmp_path: Path, first: list[object], then: list[object], said: str
) -> None:
    first, then = (
        [tmp_path / str(w) if w in ("a", "b") else w for w in words] for words in (first, then)
    )
    fill(tmp_path / "in", ["x.png", "sub/y.jpg"])
    assert run(tmp_path, *first)[0] == ["done"] * 2
    assert run(tmp_path, *first, "--threads", 1, "--max-memory", "1G")[0] == ["skipped"] * 2
    code, out, _ = upscale(tmp_path / "in", tmp_path / "out", *then)
    assert code == 0
    assert out.count(f"  made again: {said}") == 2
    assert "2 done (2 of them again, with other settings), 0 failed" in out
    assert run(tmp_path, *then)[0] == ["skipped"] * 2


def test_one_picture(tmp_path: Path) -> None:
    source, target = fill(tmp_path, ["a.png"])[0], tmp_path / "b.png"
    for scale, size in ((4, (40, 48)), (2, (20, 24))):
        assert upscale(source, target, "--scale", scale)[0] == 0
        with Image.open(target) as image:
            assert image.size == size
    assert "exists; --overwrite" in upscale(source, target, "--scale", 2).out


def test_what_was_changed_since_is_left_alone_and_told(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["x.png", "y.png", "z.png"])
    run(tmp_path)
    edited = tmp_path / "out" / "x.png"
    Image.new("L", (7, 7)).save(edited)
    os.utime(tmp_path / "out" / "y.png", (1, 1))
    before = files(tmp_path / "out")
    statuses, summary = run(tmp_path, "--scale", 2)
    assert statuses == ["skipped", "skipped", "done"]
    assert (summary["unrecorded"], summary["again"]) == (2, 1)
    after = files(tmp_path / "out")
    assert [name for name in after if after[name] != before[name]] == ["z.png"]


def test_records_go_with_copies_and_survive_damage(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["x.png", "y.png"])
    run(tmp_path)
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "copy").rename(tmp_path / "out")
    assert run(tmp_path)[1]["unrecorded"] == 0
    # A line that was cut off by a full disk, and one of something else.
    record = tmp_path / "out" / RECORD_NAME
    record.write_text("[]\n\xff" + record.read_text() + '{"name": "x.png", "si')
    write_record(tmp_path / "out" / "y.png", {"size": "x9"})
    statuses, summary = run(tmp_path)
    assert statuses == ["skipped", "done"]
    assert summary["unrecorded"] == 0
    record.unlink()
    assert run(tmp_path, "--scale", 2)[1]["unrecorded"] == 2


def test_a_retrained_model_of_the_same_name(tmp_path: Path) -> None:
    import torch

    from pcsr_lightning import weights
    from pcsr_lightning.networks import build_network, default_config

    source, target = fill(tmp_path, ["a.png"])[0], tmp_path / "b.png"
    for said in ("", "made again: another model called mine.safetensors", "skipped"):
        if said != "skipped":
            torch.manual_seed(len(said))
            file = weights.save(build_network(default_config("fsrcnn", 2)), tmp_path / "mine")
        assert said in upscale(source, target, "--model", file, code=0).out
    # The same weights under another name are the same model.
    for name in ("mine.safetensors", "mine.json"):
        shutil.copy(tmp_path / name, tmp_path / name.replace("mine", "yours"))
    assert "skipped" in upscale(source, target, "--model", tmp_path / "yours.safetensors").out


def test_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    """The result is there all the same."""
    source = fill(tmp_path, ["a.png"])[0]
    (tmp_path / "out" / RECORD_NAME).mkdir(parents=True)
    code, _, err = upscale(source, tmp_path / "out")
    assert code == 0
    assert err.startswith("WARNING: ")
    assert "how it was made cannot be kept" in err
    assert (
        json.loads(upscale(source, tmp_path / "out", "--json").out.splitlines()[0])["recorded"]
        is False
    )

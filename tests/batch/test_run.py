"""Whole runs over folders: what is made, skipped, told, and passed over."""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.batch.folders import MULTI, files, fill, lines, upscale

from pcsr_lightning import images
from pcsr_lightning.batch import one_picture
from pcsr_lightning.cli.upscale import main


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_a_tree_past_bad_files(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    fill(source, ["a.png", "b.jpg", "sub/c.webp", "sub/deep/d.bmp", "sub/e.TIF"])
    (source / "bad.png").write_bytes(b"no picture")
    (source / "sub" / "empty.jpg").touch()
    (source / "sub" / "notes.txt").write_text("no picture either")
    before = files(source)
    code, out, err = upscale(source, target, *MULTI)
    assert code == 1
    *lines, total, left_out = out.splitlines()
    assert len(lines) == 5
    assert total.startswith("7 pictures: 5 done, 2 failed, in ")
    assert left_out.endswith("1 .txt")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert [line.split(":")[0] for line in err.splitlines()] == ["error"] * 2
    assert "bad.png" in err.splitlines()[0]
    assert "empty.jpg" in err.splitlines()[1]
    assert sorted(files(target)) == [
        *("a.png", "b.jpg", "sub/c.webp", "sub/deep/d.bmp", "sub/e.TIF"),
    ]
    assert all(size(target / name) == (40, 48) for name in files(target))
    assert files(source) == before


def test_lines_of_results(tmp_path: Path) -> None:
    """Brief and in 80 columns, or all that is known."""
    fill(tmp_path / "in", ["a.png", "好" * 40 + ".png"])
    first, second, total = upscale("in", "out", *MULTI, cwd=tmp_path, code=0).out.splitlines()
    form = r"40x48 in \d\.\d s, \d+% of pixels heavy, \d+% of full cost"
    assert re.fullmatch(rf"out/a\.png: {form}", first)
    assert re.fullmatch(rf"\.\.\.好{{4,20}}\.png: {form}", second)
    columns = sum(1 + (letter == "好") for letter in second)
    assert 78 < columns <= 80
    assert re.fullmatch(r"2 pictures: 2 done, 0 failed, in \d+\.\d s", total)
    again = upscale("in", "out", *MULTI, "--verbose", cwd=tmp_path, code=0)
    settings, *lines = again.out.splitlines()
    assert settings.startswith("carn-pcsr-multi, x4, k = 0, fp32, cpu, ")
    assert lines[0] == "out/a.png: skipped (exists; --overwrite makes it again)"
    done = upscale("in", "more", *MULTI, "--verbose", cwd=tmp_path, code=0).out.splitlines()
    assert done[1].startswith("in/a.png -> more/a.png: 10x12 -> 40x48 in ")
    assert "% of all-heavy" in done[1]


def test_what_exists_is_skipped(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    fill(source, 3)
    target.mkdir()
    (target / "001.png").write_bytes(b"mine")
    code, out, err = upscale(source, target, "--json")
    assert (code, err) == (0, "")
    found, summary = lines(out)
    assert [one["status"] for one in found] == ["done", "skipped", "done"]
    assert found[1]["reason"] == "exists"
    assert (summary["done"], summary["skipped"], summary["failed"]) == (2, 1, 0)
    assert (target / "001.png").read_bytes() == b"mine"

    code, out, err = upscale(source, target)
    assert (code, err) == (0, "")
    assert "0 done, 3 skipped (they exist; --overwrite makes them again), 0 failed" in out
    assert "  of 1 that exist it is not known with which settings they were made" in out

    made = files(target)
    code, out, err = upscale(source, target, "--overwrite", "--quiet")
    assert (code, out, err) == (0, "", "")
    again = files(target)
    assert again.pop("001.png") != made.pop("001.png")
    assert again == made


def test_one_file_that_exists(tmp_path: Path) -> None:
    source, target = fill(tmp_path, ["a.png"])[0], tmp_path / "b.png"
    target.write_bytes(b"mine")
    code, out, err = upscale(source, target)
    assert (code, err) == (0, "")
    said = "skipped (exists, made in an unknown way; --overwrite makes it again)"
    assert out == f"{target}: {said}\n"
    assert target.read_bytes() == b"mine"
    assert upscale(source, target, "--overwrite")[0] == 0
    assert size(target) == (40, 48)


def test_without_out_and_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, ["a.png", "b.jpg"])
    assert upscale("*.*", "--scale", 2.5)[0] == 0
    assert sorted(files(tmp_path)) == ["a.png", "a_x2.5.png", "b.jpg", "b_x2.5.jpg"]
    assert size(tmp_path / "a_x2.5.png") == (25, 30)
    # Results beside the inputs are found again, and not enlarged again.
    code, out, _ = upscale("*.*", "--scale", 2.5)
    assert code == 0
    assert out.startswith("2 pictures: 0 done, 2 skipped")
    assert sorted(files(tmp_path)) == ["a.png", "a_x2.5.png", "b.jpg", "b_x2.5.jpg"]
    assert upscale("a.png", "--size", "31x37", "--exact")[0] == 0
    assert size(tmp_path / "a_31x37.png") == (31, 37)


def test_names_formats_and_quality(tmp_path: Path) -> None:
    source = tmp_path / "in"
    fill(source, ["a.png", "s/b.jpeg"], (30, 30))
    sizes = []
    for quality in (30, 95):
        out = tmp_path / f"q{quality}"
        words = ("--format", "jpg", "--suffix", "_big", "--quality", quality)
        assert upscale(source, "-o", out, *words)[0] == 0
        assert sorted(files(out)) == ["a_big.jpg", "s/b_big.jpeg"]
        for path in (out / "a_big.jpg", out / "s/b_big.jpeg"):
            with Image.open(path) as image:
                assert (image.format, image.size) == ("JPEG", (120, 120))
        sizes.append((out / "a_big.jpg").stat().st_size)
    assert sizes[0] < 0.7 * sizes[1]


@pytest.mark.parametrize("name", ["png", "jpg", "jpeg", "webp", "tif", "bmp", "avif"])
def test_every_format(tmp_path: Path, name: str) -> None:
    suffix = {"jpeg": "jpg"}.get(name, name)
    if f".{suffix}" not in images.SUFFIXES:
        pytest.skip(f"the picture library here does not write {name}")
    fill(tmp_path / "in", 1)
    assert upscale(tmp_path / "in", tmp_path / "out", "--format", name)[0] == 0
    assert list(files(tmp_path / "out")) == [f"000.{suffix}"]
    assert images.read(tmp_path / f"out/000.{suffix}").rgb.shape == (3, 48, 40)


def test_class_maps_of_several(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["a.jpg", "s/b.png"])
    words = (tmp_path / "in", tmp_path / "out", "--class-map", tmp_path / "maps", "--scale", 2)
    assert upscale(*words)[0] == 0
    assert sorted(files(tmp_path / "maps")) == ["a.png", "s/b.png"]
    assert size(tmp_path / "maps" / "a.png") == (20, 24)


def test_json_tells_all(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["a.png", "ü.png"])
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    code, out, err = upscale(tmp_path / "in", tmp_path / "out", "--json", "--budget", "50%")
    assert code == 1
    found, summary = lines(out)
    done, bad, other = found
    assert done["input"] == str(tmp_path / "in" / "a.png")
    assert done["output"] == str(tmp_path / "out" / "a.png")
    assert done["input_size"] == [10, 12]
    assert done["output_size"] == [40, 48]
    assert sum(done["shares"]) == pytest.approx(1)
    assert done["seconds"] > 0
    assert done["gmacs"] > 0
    assert done["error"] is None
    assert other["input"].endswith("ü.png")
    assert bad["status"] == "failed"
    assert "bad.png: cannot read" in bad["error"]
    assert set(bad) == set(done)
    assert (summary["done"], summary["failed"], summary["left"]) == (2, 1, 0)
    assert err == f"error: {bad['error']}\n"


def test_json_of_a_run_that_could_not_begin(tmp_path: Path) -> None:
    code, out, err = upscale(tmp_path / "missing", tmp_path / "out", "--json")
    assert code == 1
    found, summary = lines(out)
    assert found == []
    assert summary["error"].endswith("missing: no such file or folder")
    assert err == f"error: {summary['error']}\n"


def test_a_clash_of_names_leaves_the_others(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["a.jpg", "a.png", "b.png"])
    code, out, err = upscale(tmp_path / "in", tmp_path / "out", "--format", "webp")
    assert code == 1
    assert "3 pictures: 1 done, 2 failed" in out
    assert [line.split(": would become ")[0] for line in err.splitlines()] == [
        f"error: {tmp_path}/in/a.jpg",
        f"error: {tmp_path}/in/a.png",
    ]
    assert list(files(tmp_path / "out")) == ["b.webp"]


def test_links_are_written_through_and_permissions_stay(tmp_path: Path) -> None:
    source = fill(tmp_path, ["a.png"])[0]
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.png", tmp_path / "link.png"
    real.write_bytes(b"older")
    real.chmod(0o640)
    link.symlink_to("elsewhere/real.png")
    classes = tmp_path / "classes.png"
    classes.symlink_to("elsewhere/new.png")
    assert upscale(source, link, "--overwrite", "--class-map", classes)[0] == 0
    assert link.is_symlink()
    assert classes.is_symlink()
    assert (size(real), real.stat().st_mode & 0o777) == ((40, 48), 0o640)
    assert size(tmp_path / "elsewhere" / "new.png") == (40, 48)
    # Links that lead nowhere that can be written to.
    link.unlink()
    link.symlink_to("no/such.png")
    code, _, err = upscale(source, link)
    assert (code, f"the folder {tmp_path}/no does not exist" in err) == (1, True)


def test_wrong_settings_are_told_once(tmp_path: Path) -> None:
    fill(tmp_path / "in", 3)
    for options in (["--fixed-class", "2"], ["--k", "nan"], ["--scale", "17"], ["--budget", "2"]):
        code, out, err = upscale(tmp_path / "in", tmp_path / "out", *options)
        assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert not (tmp_path / "out").exists()


def test_a_format_that_cannot_hold_the_result(tmp_path: Path) -> None:
    """Told before the work: 1 x 1200 pixels 16 times are more than a WebP holds."""
    source = fill(tmp_path, ["a.png"], (1, 1200))[0]
    code, _, err = upscale(source, tmp_path / "a.webp", "--scale", 16)
    assert code == 1
    assert "16,383" in err


def test_too_many_pixels_to_read(tmp_path: Path) -> None:
    source = fill(tmp_path, ["a.png"])[0]
    assert upscale(source, tmp_path / "b.png", "--max-pixels", 120)[0] == 0
    code, _, err = upscale(source, tmp_path / "c.png", "--max-pixels", 119)
    assert code == 1
    assert "119" in err


def test_surprises_in_a_batch_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in", 3)
    real = one_picture.upscale
    calls: list[int] = []

    def fail_once(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:  # the first is the rehearsal
            raise MemoryError("no more")
        return real(*args, **kwargs)

    monkeypatch.setattr(one_picture, "upscale", fail_once)
    code, _, err = upscale(tmp_path / "in", tmp_path / "out", *MULTI)
    assert code == 1
    source = tmp_path / "in" / "001.png"
    assert err == f"error: {source}: MemoryError: no more (--debug shows where)\n"
    assert list(files(tmp_path / "out")) == ["000.png", "002.png"]


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["a.png", "b.png", "s/c.png"])
    (tmp_path / "out" / "b.png").mkdir(parents=True)
    (tmp_path / "out" / "s").write_text("a file where a folder should be")
    code, _, err = upscale(tmp_path / "in", tmp_path / "out")
    assert code == 1
    folder, below = err.splitlines()
    assert "b.png" in folder
    assert "is a folder" in folder.lower()
    assert "c.png: cannot be made there" in below
    assert sorted(files(tmp_path / "out")) == ["a.png", "s"]


def test_a_name_too_long_for_its_result(tmp_path: Path) -> None:
    """Neither this nor what is left of a killed run keeps the others from being made."""
    long = "l" * 250 + ".png"
    fill(tmp_path / "in", ["a.png", "b.png", long])
    (tmp_path / "out" / ".b_wide.png.1.tmp").mkdir(parents=True)
    code, out, err = upscale(tmp_path / "in", tmp_path / "out", "--suffix", "_wide")
    assert code == 1
    assert "1 done, 2 failed" in out
    reasons = [line.rpartition(" (")[2] for line in err.splitlines()]
    assert reasons == ["Is a directory).", "File name too long)"]
    assert list(files(tmp_path / "out")) == ["a_wide.png"]


def test_names_that_are_no_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are no letters, line breaks and what would steer a terminal: one line each."""
    names = ["new\nline.png", "\x1b[31m.png", os.fsdecode(b"caf\xe9.png")]
    fill(tmp_path / "in", names)
    (tmp_path / "in" / "bad\n.png").touch()
    code, out, err = upscale(tmp_path / "in", tmp_path / "out", *MULTI)
    assert code == 1
    assert len(out.splitlines()) == len(names) + 1
    assert (tmp_path / "out" / names[0]).is_file()
    assert r"\x1b[31m.png" in out
    assert r"caf\udce9.png" in out
    assert "\x1b" not in out
    assert err == f"error: {tmp_path}/in/bad .png: the file is empty (0 bytes).\n"
    told = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    fill(tmp_path / "more", ["好.png"])
    monkeypatch.setattr(sys, "stdout", told)
    assert main([str(tmp_path / "more"), str(tmp_path / "out")]) == 0
    told.seek(0)
    assert r"\u597d.png" in told.read()


def test_out_after_options(tmp_path: Path) -> None:
    source = fill(tmp_path, ["a.png"])[0]
    assert upscale(source, "--scale", 2, tmp_path / "b.png", "--quiet") == (0, "", "")
    assert size(tmp_path / "b.png") == (20, 24)


def test_names_that_begin_with_a_dash(tmp_path: Path) -> None:
    fill(tmp_path, ["-a.png", "-b.png"])
    assert upscale("--scale", 2, "--", "-a.png", "-out.png", cwd=tmp_path)[0] == 0
    assert size(tmp_path / "-out.png") == (20, 24)
    assert upscale("--quiet", "--", "-a.png", "-b.png", "out", cwd=tmp_path) == (0, "", "")
    assert sorted(files(tmp_path / "out")) == ["-a.png", "-b.png"]
    assert upscale("-a.png", "--", "x.png", cwd=tmp_path)[0] == 2
    assert upscale("--", cwd=tmp_path)[0] == 2


def test_quiet_is_quiet(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    half = torch.full((1, 6, 5), 0.5)
    images.write(images.Picture(torch.rand(3, 6, 5), half, bits=16), source)
    _, _, err = upscale(source, tmp_path / "a.jpg")
    assert err.count("WARNING") == 2  # depth and transparency
    assert upscale(source, tmp_path / "b.jpg", "--quiet") == (0, "", "")


def test_debug_shows_the_trace_of_each(tmp_path: Path) -> None:
    fill(tmp_path / "in", 1)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    code, _, err = upscale(tmp_path / "in", tmp_path / "out", "--debug")
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")
